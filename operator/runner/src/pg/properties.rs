//! What belongs to a database and is in no dump of it: read, put on a new database, compared.
//!
//! Invariant: every field of [`DatabaseProperties`] that the new database can have is both set and compared,
//! so that nothing is lost without a word.

use std::collections::BTreeMap;

use crate::task::{DatabaseProperties, Named};
use serde::Deserialize;

use super::psql::Session;
use super::quote::{ident, list_elements, literal, nullable};
use super::server::{Admin, Server};
use crate::error::{Error, Result};

/// Settings whose stored value is a list of quoted names (`GUC_LIST_QUOTE` of the server).
const LISTS: [&str; 6] = [
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
];

/// A database and the properties that can be read from outside of it.
#[derive(Debug, Deserialize)]
pub(crate) struct Found {
    /// OID.
    pub(crate) oid: u32,
    /// Whether it allows connections.
    pub(crate) allows_connections: bool,
    /// Without `extensions`, and without the roles that only the database itself tells of.
    pub(crate) properties: DatabaseProperties,
}

/// One privilege of an ACL: grantor, grantee (empty for PUBLIC), privilege, grant option.
type Grant = (String, String, String, bool);

/// Reads a database's properties from outside, none where it does not exist.
pub(crate) fn read(admin: &mut Admin<'_>, database: &str) -> Result<Option<Found>> {
    let sql = from_outside(admin.version, database);
    admin.session.json(&sql)
}

/// Adds what only the database itself tells; it has to allow connections.
pub(crate) fn add_from_inside(session: &mut Session, properties: &mut DatabaseProperties) -> Result<()> {
    let (extensions, bootstrap_owner): (BTreeMap<String, String>, Option<String>) =
        session.json(FROM_INSIDE)?;
    properties.extensions = extensions;
    if let Some(role) = bootstrap_owner
        && !properties.roles.contains(&role)
    {
        properties.roles.push(role);
        properties.roles.sort();
    }
    Ok(())
}

/// Makes an empty database, with the encoding, locale and tablespace of `properties`, into which nobody
/// gets but who may do everything (or, without such a role, nobody who has no more than PUBLIC's rights).
pub(crate) fn create(admin: &mut Admin<'_>, name: &str, properties: &DatabaseProperties) -> Result<Named> {
    let mut sql = creation(admin.version, name, properties, admin.is_superuser)?;
    let inherited = admin.session.query(
        "SELECT t.spcname FROM pg_database d JOIN pg_tablespace t ON t.oid = d.dattablespace WHERE datname = 'template0'",
    )?;
    // To name even the inherited tablespace takes a privilege on it.
    if properties.tablespace != inherited {
        sql += &format!(" TABLESPACE {}", ident(&properties.tablespace));
    }
    admin.session.run(&sql)?;
    if !admin.is_superuser {
        admin.session.run(&format!("REVOKE CONNECT ON DATABASE {} FROM PUBLIC", ident(name)))?;
    }
    admin.named(name)?.ok_or_else(|| Error::Unready(format!("database `{name}` vanished after it was made")))
}

/// Puts the properties on a database made by [`create`], then reads all of them back and compares.
pub(crate) fn apply(admin: &mut Admin<'_>, name: &str, wanted: &DatabaseProperties) -> Result<()> {
    let database = ident(name);
    admin.session.run(&format!("ALTER DATABASE {database} OWNER TO {}", ident(&wanted.owner)))?;
    apply_acl(admin, &database, wanted)?;
    admin
        .session
        .run(&format!("COMMENT ON DATABASE {database} IS {}", nullable(wanted.comment.as_deref())))?;
    for (provider, label) in &wanted.security_labels {
        let (provider, label) = (ident(provider), literal(label));
        admin.session.run(&format!("SECURITY LABEL FOR {provider} ON DATABASE {database} IS {label}"))?;
    }
    for (role, items) in &wanted.settings {
        for item in items {
            admin.session.run(&setting(&database, role, item)?)?;
        }
    }
    let DatabaseProperties { connection_limit, is_template, .. } = wanted;
    admin.session.run(&format!(
        "ALTER DATABASE {database} WITH CONNECTION LIMIT {connection_limit} IS_TEMPLATE {is_template}"
    ))?;
    compare(admin, name, wanted)
}

/// Properties of `database` in full, for a manifest or a report.
pub(crate) fn read_in_full(admin: &mut Admin<'_>, database: &str) -> Result<Option<(Found, Session)>> {
    let Some(mut found) = read(admin, database)? else { return Ok(None) };
    if !found.allows_connections {
        return Err(Error::refused(format!("database `{database}` does not allow connections")));
    }
    let mut session = Server::session(&admin.server, database)?;
    add_from_inside(&mut session, &mut found.properties)?;
    Ok(Some((found, session)))
}

fn compare(admin: &mut Admin<'_>, name: &str, wanted: &DatabaseProperties) -> Result<()> {
    let found = read(admin, name)?
        .ok_or_else(|| Error::Unready(format!("database `{name}` vanished while it was made")))?
        .properties;
    let mut lost = differences(wanted, &found);
    if wanted.acl.is_none() && found.acl.is_some() && !has_default_acl(admin, name)? {
        lost.push(format!("privileges: {:?} instead of the default", found.acl));
    }
    if lost.is_empty() {
        return Ok(());
    }
    Err(Error::refused(format!("database `{name}` did not get all properties: {}", lost.join("; "))))
}

/// What differs of the properties that a new database can have. A default ACL is compared elsewhere.
pub(crate) fn differences(wanted: &DatabaseProperties, found: &DatabaseProperties) -> Vec<String> {
    let mut lost = Vec::new();
    let mut look = |what: &str, wanted: String, found: String| {
        if wanted != found {
            lost.push(format!("{what}: {found} instead of {wanted}"));
        }
    };
    let DatabaseProperties {
        owner,
        encoding,
        locale_provider,
        collate,
        ctype,
        locale,
        icu_rules,
        tablespace,
        connection_limit,
        is_template,
        comment,
        acl,
        settings,
        security_labels,
        roles: _,
        extensions: _,
        size: _,
    } = wanted;
    look("owner", owner.clone(), found.owner.clone());
    look("encoding", encoding.clone(), found.encoding.clone());
    look("locale provider", locale_provider.clone(), found.locale_provider.clone());
    look("LC_COLLATE", collate.clone(), found.collate.clone());
    look("LC_CTYPE", ctype.clone(), found.ctype.clone());
    look("locale", canonical(locale.as_deref()), canonical(found.locale.as_deref()));
    look("ICU rules", format!("{icu_rules:?}"), format!("{:?}", found.icu_rules));
    look("tablespace", tablespace.clone(), found.tablespace.clone());
    look("connection limit", connection_limit.to_string(), found.connection_limit.to_string());
    look("template", is_template.to_string(), found.is_template.to_string());
    look("comment", format!("{comment:?}"), format!("{:?}", found.comment));
    if let Some(acl) = acl {
        look("privileges", sorted(acl), sorted(found.acl.as_deref().unwrap_or_default()));
    }
    let by_role = |settings: &BTreeMap<String, Vec<String>>| {
        settings
            .iter()
            .map(|(role, items)| format!("{role:?} {}", sorted(items)))
            .collect::<Vec<_>>()
            .join(", ")
    };
    look("settings", by_role(settings), by_role(&found.settings));
    look("security labels", format!("{security_labels:?}"), format!("{:?}", found.security_labels));
    lost
}

/// Newer servers write `en_US` as `en-US`.
fn canonical(locale: Option<&str>) -> String {
    locale.unwrap_or("none").replace('_', "-").to_lowercase()
}

fn sorted(items: &[String]) -> String {
    let mut items = items.to_vec();
    items.sort();
    format!("{items:?}")
}

/// Sets the privileges exactly as they were granted, each by its grantor. An ACL that was never touched
/// stays so.
fn apply_acl(admin: &mut Admin<'_>, database: &str, wanted: &DatabaseProperties) -> Result<()> {
    let Some(acl) = &wanted.acl else {
        if !admin.is_superuser {
            admin.session.run(&format!("GRANT CONNECT, TEMPORARY ON DATABASE {database} TO PUBLIC"))?;
        }
        return Ok(());
    };
    let owner = ident(&wanted.owner);
    admin.session.run(&format!("REVOKE ALL ON DATABASE {database} FROM PUBLIC, {owner}"))?;
    let items: Vec<String> = acl.iter().map(|item| literal(item)).collect();
    let grants: Vec<Grant> = admin.session.json(&format!(
        "SELECT coalesce(json_agg(json_build_array(pg_get_userbyid(grantor),
            CASE grantee WHEN 0 THEN '' ELSE pg_get_userbyid(grantee) END, privilege_type, is_grantable)), '[]')
         FROM aclexplode(ARRAY[{}]::aclitem[])",
        items.join(",")
    ))?;
    for (grantor, grantee, privilege, grantable) in in_order(grants, &wanted.owner)? {
        let to = if grantee.is_empty() { "PUBLIC".to_owned() } else { ident(&grantee) };
        let option = if grantable { " WITH GRANT OPTION" } else { "" };
        if grantor != wanted.owner {
            admin.session.run(&format!("SET ROLE {}", ident(&grantor)))?;
        }
        admin.session.run(&format!("GRANT {privilege} ON DATABASE {database} TO {to}{option}"))?;
        if grantor != wanted.owner {
            admin.session.run("RESET ROLE")?;
        }
    }
    Ok(())
}

/// Grants of the owner first, then those of whom they allow to grant, and so on.
fn in_order(mut grants: Vec<Grant>, owner: &str) -> Result<Vec<Grant>> {
    let mut ordered: Vec<Grant> = Vec::with_capacity(grants.len());
    while !grants.is_empty() {
        let may = |grant: &Grant| {
            grant.0 == owner
                || ordered.iter().any(|(_, to, what, option)| *option && *to == grant.0 && *what == grant.2)
        };
        let (ready, rest): (Vec<_>, Vec<_>) = grants.into_iter().partition(may);
        if ready.is_empty() {
            let names: Vec<&str> = rest.iter().map(|(grantor, ..)| grantor.as_str()).collect();
            return Err(Error::refused(format!("nobody allowed {} to grant privileges", names.join(", "))));
        }
        ordered.extend(ready);
        grants = rest;
    }
    Ok(ordered)
}

fn has_default_acl(admin: &mut Admin<'_>, name: &str) -> Result<bool> {
    let name = literal(name);
    admin.session.json(&format!(
        "SELECT to_json((SELECT array_agg(a::text ORDER BY a::text) FROM unnest(datacl) a)
             = (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(acldefault('d', datdba)) a))
         FROM pg_database WHERE datname = {name}"
    ))
}

/// The statement that makes `item` (`name=value`) a setting of the database, or of a role in it.
fn setting(database: &str, role: &str, item: &str) -> Result<String> {
    let (name, value) =
        item.split_once('=').ok_or_else(|| Error::refused(format!("`{item}` is not a setting")))?;
    let of = match role {
        "" => format!("DATABASE {database}"),
        role => format!("ROLE {} IN DATABASE {database}", ident(role)),
    };
    let value = if LISTS.contains(&name) {
        list_elements(value).iter().map(|element| literal(element)).collect::<Vec<_>>().join(", ")
    } else {
        literal(value)
    };
    let name: Vec<String> = name.split('.').map(ident).collect();
    Ok(format!("ALTER {of} SET {} TO {value}", name.join(".")))
}

fn creation(version: u32, name: &str, properties: &DatabaseProperties, closed: bool) -> Result<String> {
    let DatabaseProperties { encoding, locale_provider, collate, ctype, locale, icu_rules, .. } = properties;
    let mut sql = format!(
        "CREATE DATABASE {} TEMPLATE template0 ENCODING {} LC_COLLATE {} LC_CTYPE {}",
        ident(name),
        literal(encoding),
        literal(collate),
        literal(ctype)
    );
    let of = literal(locale.as_deref().unwrap_or_default());
    match locale_provider.as_str() {
        "c" if version < 150_000 => {}
        "c" => sql += " LOCALE_PROVIDER libc",
        "i" if version >= 150_000 => {
            sql += &format!(" LOCALE_PROVIDER icu ICU_LOCALE {of}");
            if let Some(rules) = icu_rules {
                sql += &format!(" ICU_RULES {}", literal(rules));
            }
        }
        "b" if version >= 170_000 => sql += &format!(" LOCALE_PROVIDER builtin BUILTIN_LOCALE {of}"),
        other => return Err(Error::refused(format!("this server has no locale provider `{other}`"))),
    }
    if closed {
        sql += " CONNECTION LIMIT 0";
    }
    Ok(sql)
}

fn from_outside(version: u32, database: &str) -> String {
    let provider = if version >= 150_000 { "d.datlocprovider::text" } else { "'c'" };
    let locale = match version {
        170_000.. => "d.datlocale",
        150_000.. => "d.daticulocale",
        _ => "NULL::text",
    };
    let icu_rules = if version >= 160_000 { "d.daticurules" } else { "NULL::text" };
    let database = literal(database);
    format!(
        "SELECT coalesce((SELECT json_build_object('oid', d.oid::int8, 'allows_connections', d.datallowconn,
  'properties', json_build_object(
    'owner', pg_get_userbyid(d.datdba), 'encoding', pg_encoding_to_char(d.encoding),
    'locale_provider', {provider}, 'collate', d.datcollate, 'ctype', d.datctype,
    'locale', {locale}, 'icu_rules', {icu_rules},
    'tablespace', (SELECT spcname FROM pg_tablespace WHERE oid = d.dattablespace),
    'connection_limit', greatest(d.datconnlimit, -1), 'is_template', d.datistemplate,
    'comment', shobj_description(d.oid, 'pg_database'),
    'acl', CASE WHEN d.datacl IS NOT NULL
        THEN (SELECT coalesce(json_agg(a::text), '[]') FROM unnest(d.datacl) a) END,
    'settings', (SELECT coalesce(json_object_agg(coalesce(r.rolname, ''), s.setconfig), '{{}}')
        FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole WHERE s.setdatabase = d.oid),
    'security_labels', (SELECT coalesce(json_object_agg(l.provider, l.label), '{{}}')
        FROM pg_shseclabel l WHERE l.classoid = 'pg_database'::regclass AND l.objoid = d.oid),
    'roles', (SELECT json_agg(name ORDER BY name) FROM (
        SELECT pg_get_userbyid(d.datdba)::text AS name
        UNION SELECT r.rolname::text FROM pg_shdepend s JOIN pg_roles r ON r.oid = s.refobjid
          WHERE s.refclassid = 'pg_authid'::regclass
            AND (s.dbid = d.oid OR s.dbid = 0 AND s.classid = 'pg_database'::regclass AND s.objid = d.oid)
        UNION SELECT r.rolname::text FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole
          WHERE s.setdatabase = d.oid) AS named),
    'extensions', '{{}}'::json, 'size', pg_database_size(d.oid)))
 FROM pg_database d WHERE d.datname = {database}), 'null')"
    )
}

/// Extensions, and the role that the cluster was made with where objects of its own (not of an extension)
/// are in the database: `pg_shdepend` does not list that role.
const FROM_INSIDE: &str = "SELECT json_build_array(
  (SELECT coalesce(json_object_agg(extname, extversion), '{}') FROM pg_extension),
  (SELECT CASE WHEN EXISTS (
     SELECT FROM (
       SELECT 'pg_class'::regclass AS class, oid, relowner AS owner FROM pg_class WHERE relkind NOT IN ('i', 'I', 't')
       UNION ALL SELECT 'pg_proc'::regclass, oid, proowner FROM pg_proc
       UNION ALL SELECT 'pg_namespace'::regclass, oid, nspowner FROM pg_namespace
       UNION ALL SELECT 'pg_largeobject'::regclass, oid, lomowner FROM pg_largeobject_metadata
       UNION ALL SELECT 'pg_type'::regclass, oid, typowner FROM pg_type WHERE typtype IN ('d', 'e', 'r')
     ) AS object
     WHERE owner = 10 AND oid >= 16384 AND NOT EXISTS (
       SELECT FROM pg_depend e WHERE e.classid = class AND e.objid = object.oid AND e.deptype = 'e'))
   THEN pg_get_userbyid(10) END))";

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(by: &str, to: &str, option: bool) -> Grant {
        (by.into(), to.into(), "CONNECT".into(), option)
    }

    #[test]
    fn a_grant_follows_the_one_that_allows_it() {
        let ordered =
            in_order(vec![grant("b", "c", false), grant("a", "b", true), grant("o", "a", true)], "o")
                .unwrap();
        let grantors: Vec<&str> = ordered.iter().map(|(by, ..)| by.as_str()).collect();
        assert_eq!(grantors, ["o", "a", "b"]);
        assert!(in_order(vec![grant("stranger", "c", false)], "o").is_err());
    }

    #[test]
    fn list_settings_keep_their_elements_and_others_their_text() {
        let search_path = setting("\"d\"", "", "search_path=\"$user\", public").unwrap();
        assert_eq!(search_path, "ALTER DATABASE \"d\" SET \"search_path\" TO '$user', 'public'");
        let other = setting("\"d\"", "Al Ice", "app.Name=it's, so").unwrap();
        assert_eq!(other, "ALTER ROLE \"Al Ice\" IN DATABASE \"d\" SET \"app\".\"Name\" TO 'it''s, so'");
        assert!(setting("\"d\"", "", "nothing").is_err());
    }

    #[test]
    fn each_server_is_asked_for_a_locale_that_it_knows() {
        let mut properties =
            DatabaseProperties { locale_provider: "i".into(), ..DatabaseProperties::default() };
        properties.locale = Some("und".into());
        assert!(creation(140_000, "d", &properties, true).is_err());
        assert!(creation(150_000, "d", &properties, true).unwrap().contains("ICU_LOCALE 'und'"));
        properties.locale_provider = "b".into();
        assert!(creation(160_000, "d", &properties, true).is_err());
        assert!(creation(170_000, "d", &properties, true).unwrap().contains("BUILTIN_LOCALE 'und'"));
        properties.locale_provider = "c".into();
        assert!(!creation(130_000, "d", &properties, true).unwrap().contains("LOCALE_PROVIDER"));
    }

    #[test]
    fn every_lost_property_is_told() {
        let wanted = DatabaseProperties {
            owner: "shop".into(),
            connection_limit: 7,
            comment: Some("c".into()),
            acl: Some(vec!["=T/shop".into()]),
            settings: BTreeMap::from([("".into(), vec!["a=1".into()])]),
            ..DatabaseProperties::default()
        };
        let lost = differences(&wanted, &DatabaseProperties::default());
        let names: Vec<&str> = lost.iter().filter_map(|lost| lost.split(':').next()).collect();
        assert_eq!(names, ["owner", "connection limit", "comment", "privileges", "settings"]);
        assert!(differences(&wanted, &wanted).is_empty());
    }
}
