//! A stand-in for a MongoDB and its tools, where the real ones cannot be had: `mongodump`, `mongorestore` and `mongosh` as far as
//! Skep calls them, with a server that is a file of JSON; and `mongod`, as a drill starts it.
//!
//! It takes exactly the options that Skep gives, as the real tools' documentation has them, and refuses any other; it writes
//! and reads the archive format of mongo-tools 100 (`common/archive`): pieces of several collections among each other, and
//! each collection's CRC-64 at its end. `mongosh` runs no JavaScript: it takes Skep's own script and does what that says.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The port of the live server.
const LIVE: u16 = 27017;
const MAGIC: u32 = 0x8199_e26d;
const SCRIPT: &str = include_str!("../../src/mongodb/collections.js");

/// The documents of a collection.
type Documents = Vec<Vec<u8>>;
/// Collections by name.
pub type Collections = BTreeMap<String, Documents>;

/// The server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Its version.
    pub version: String,
    /// Of the user `root`; none where there are no accounts.
    pub password: Option<String>,
    /// It is a member of a replica set.
    pub member: bool,
    /// What is written to it while it is dumped, in its oplog: a document goes into the collection that the change names.
    pub oplog: Documents,
    /// Its user may replay an oplog.
    pub replays: bool,
    /// The oplog goes round while it is dumped.
    pub oplog_overflows: bool,
    /// An oplog cannot be replayed.
    pub replay_fails: bool,
    /// Its databases.
    pub databases: BTreeMap<String, Collections>,
    /// It does not answer.
    pub is_down: bool,
    /// `mongodump` ends after half of the archive, with a failure.
    pub dump_fails: bool,
    /// `mongorestore` ends after the first collection, with a failure.
    pub restore_fails: bool,
    /// `mongorestore` loses a document without a word.
    pub restore_loses: bool,
    /// `mongorestore` puts another document in the place of one, without a word.
    pub restore_alters: bool,
    /// It is one that a job has started.
    #[serde(skip)]
    pub is_scratch: bool,
    /// Collections with an index by which documents expire: those of a backup have, all but one.
    pub fading: Vec<String>,
    /// Of a server that a job starts.
    pub scratch: Scratch,
}

/// What becomes of a server that a job starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scratch {
    /// It works.
    #[default]
    Works,
    /// It does not start.
    Ends,
    /// It says that its data is elsewhere.
    Elsewhere,
    /// It ends while it is loaded.
    Dies,
    /// It works, and cannot be dumped.
    Dumb,
}

impl State {
    /// Where a stand-in keeps it.
    pub fn read(dir: &Path) -> State {
        serde_json::from_slice(&fs::read(dir.join("mongo.json")).unwrap()).unwrap()
    }

    /// Keeps it.
    pub fn write(&self, dir: &Path) {
        fs::write(dir.join("mongo.json"), serde_json::to_vec(self).unwrap()).unwrap();
    }
}

/// Puts the tools into a directory of programs. Each is this very test program, told by the environment what it is: what
/// it prints goes out by descriptor 3, since the test harness has its own lines to print.
pub fn install(dir: &Path, bin: &Path) {
    let program = std::env::current_exe().unwrap();
    for tool in ["mongodump", "mongorestore", "mongosh", "mongod"] {
        let script = format!(
            "#!/bin/sh\nSTAND_IN={tool} STAND_IN_DIR='{}' STAND_IN_ARGS=\"$(printf '%s\\037' \"$@\")\"\n\
             export STAND_IN STAND_IN_DIR STAND_IN_ARGS\nexec '{}' mongodb::stand_in --exact --ignored --nocapture 3>&1 >/dev/null\n",
            dir.display(),
            program.display()
        );
        fs::write(bin.join(tool), script).unwrap();
        fs::set_permissions(bin.join(tool), fs::Permissions::from_mode(0o755)).unwrap();
    }
}

/// What the tools were called with, a line a call.
pub fn calls(dir: &Path) -> Vec<String> {
    fs::read_to_string(dir.join("calls")).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// Does what the environment says; none where this is no stand-in.
pub fn play() -> Option<i32> {
    let tool = std::env::var("STAND_IN").ok()?;
    let dir = PathBuf::from(std::env::var("STAND_IN_DIR").unwrap());
    let args = std::env::var("STAND_IN_ARGS").unwrap();
    let args: Vec<&str> = args.split_terminator('\u{1f}').collect();
    let line = format!("{tool} {}\n", args.join(" "));
    fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(dir.join("calls"))
        .unwrap()
        .write_all(line.as_bytes())
        .unwrap();
    if tool == "mongod" {
        return Some(serve(&args, &dir));
    }
    let live = dir.clone();
    let dir = home(&args, &dir);
    let mut state = State::read(&dir);
    state.is_scratch = dir != live;
    let done = match tool.as_str() {
        "mongodump" if args.contains(&"--oplog") => {
            options(&args, &["--archive", "--oplog"], &state).and_then(|_| dump(&state, true))
        }
        "mongodump" => options(&args, &["--archive"], &state).and_then(|_| dump(&state, false)),
        "mongorestore" if args.contains(&"--oplogReplay") => {
            options(&args, &["--archive", "--oplogReplay", "--stopOnError"], &state)
                .and_then(|excluded| replay(&mut state, &excluded, &dir))
        }
        "mongorestore" if state.is_scratch && state.scratch == Scratch::Dies => {
            let mut server = TcpStream::connect(("127.0.0.1", port(&args))).unwrap();
            server.write_all(b"d").unwrap();
            // Until it has ended.
            let _end = server.read(&mut [0]);
            Err("shop.orders: error restoring from archive on stdin: connection closed".into())
        }
        "mongorestore" => options(&args, &["--archive", "--drop", "--stopOnError"], &state)
            .and_then(|excluded| restore(&mut state, &excluded, &dir)),
        "mongosh" => shell(&args, &mut state, &dir),
        other => Err(format!("unknown tool {other}")),
    };
    Some(match done {
        Ok(()) => 0,
        Err(said) => {
            eprintln!("2026-01-01T00:00:00.000+0000\tFailed: {said}");
            1
        }
    })
}

/// The port that a tool is to speak to.
fn port(args: &[&str]) -> u16 {
    let given = args.iter().find_map(|arg| arg.strip_prefix("--port="));
    let script = || {
        let text = fs::read_to_string(args.last()?).ok()?;
        let (_, rest) = text.split_once("127.0.0.1:")?;
        Some(rest.split_once('/')?.0.to_owned())
    };
    given.map(str::to_owned).or_else(script).and_then(|port| port.parse().ok()).unwrap_or(LIVE)
}

/// Where the server has its state that a tool is to speak to.
fn home(args: &[&str], dir: &Path) -> PathBuf {
    match port(args) {
        LIVE => dir.to_owned(),
        port => fs::read_to_string(dir.join(format!("scratch-{port}"))).unwrap().into(),
    }
}

/// `mongod`: a server of a job, begun empty, until it is ended.
fn serve(args: &[&str], dir: &Path) -> i32 {
    let given: BTreeMap<&str, &str> = args.iter().filter_map(|arg| arg.split_once('=')).collect();
    let data = Path::new(given["--dbpath"]);
    let own = data.parent().unwrap().display().to_string();
    let port: u16 = given["--port"].parse().unwrap();
    let wanted = [
        format!("--dbpath={own}/data"),
        format!("--logpath={own}/log"),
        "--bind_ip=127.0.0.1".to_owned(),
        format!("--port={port}"),
        "--wiredTigerCacheSizeGB=0.25".to_owned(),
        "--nounixsocket".to_owned(),
        "--setParameter=ttlMonitorEnabled=false".to_owned(),
    ];
    assert_eq!(args, wanted, "options of the documentation, and no others");
    assert_eq!(fs::read_dir(data).unwrap().count(), 0, "it begins empty");
    assert_eq!(fs::metadata(&own).unwrap().permissions().mode() & 0o777, 0o700);
    let live = State::read(dir);
    if live.scratch == Scratch::Ends {
        fs::write(Path::new(&own).join("log"), "Fatal assertion: illegal instruction\n").unwrap();
        return 14;
    }
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let state =
        State { databases: BTreeMap::new(), password: None, is_down: false, dump_fails: false, ..live };
    State { dump_fails: state.scratch == Scratch::Dumb, ..state }.write(data);
    fs::write(dir.join(format!("scratch-{port}")), data.to_str().unwrap()).unwrap();
    for mut client in listener.incoming().flatten() {
        // A look whether it is there says nothing.
        if client.read(&mut [0]).is_ok_and(|read| read > 0) {
            return 51;
        }
    }
    0
}

fn out(bytes: &[u8]) -> Result<(), String> {
    let mut out = fs::OpenOptions::new().write(true).open("/proc/self/fd/3").map_err(|e| e.to_string())?;
    out.write_all(bytes).map_err(|error| error.to_string())
}

/// Takes the options, logs in; which databases are excluded.
fn options(args: &[&str], flags: &[&str], state: &State) -> Result<Vec<String>, String> {
    let (mut given, mut excluded) = (BTreeMap::new(), Vec::new());
    for arg in args {
        match arg.split_once('=') {
            Some(("--nsExclude", pattern)) => excluded.push(pattern.strip_suffix(".*").unwrap().to_owned()),
            Some((name, value)) => drop(given.insert(name, value)),
            None if flags.contains(arg) => drop(given.insert(arg, "")),
            None => return Err(format!("error parsing command line options: unknown option {arg}")),
        }
    }
    if flags.iter().any(|flag| !given.contains_key(flag)) {
        return Err("this stand-in knows archives only".into());
    }
    let known = ["--host", "--port", "--username", "--authenticationDatabase", "--config"];
    if let Some(name) = given.keys().find(|name| !known.contains(name) && !flags.contains(name)) {
        return Err(format!("error parsing command line options: unknown option {name}"));
    }
    if state.is_down || given.get("--host") != Some(&"127.0.0.1") || !given.contains_key("--port") {
        return Err("can't create session: failed to connect to mongodb://127.0.0.1:27017/: server selection error: server \
                    selection timeout, current topology: { Type: Single }"
            .into());
    }
    let password = given.get("--config").map(|path| {
        let text = secret(path);
        let line = text.strip_prefix("password: ").expect("the file says nothing else");
        serde_json::from_str::<String>(line.trim_end()).expect("YAML in double quotes")
    });
    let is_root =
        given.get("--username") == Some(&"root") && given.get("--authenticationDatabase") == Some(&"admin");
    match &state.password {
        Some(wanted) if !is_root || password.as_ref() != Some(wanted) => Err("can't create session: could not connect to \
            server: connection() error occurred during connection handshake: auth error: sasl conversation error: unable to \
            authenticate using mechanism \"SCRAM-SHA-256\": (AuthenticationFailed) Authentication failed."
            .into()),
        _ => Ok(excluded),
    }
}

/// What is in a file with a secret, which only its owner may read.
fn secret(path: &str) -> String {
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600, "{path}");
    fs::read_to_string(path).unwrap()
}

fn dump(state: &State, oplog: bool) -> Result<(), String> {
    if oplog && !state.member {
        return Err("error finding oplog: not connected to a replica set".into());
    }
    let archive = if oplog { archive_with_oplog(state) } else { archive(state) };
    if oplog && state.oplog_overflows {
        out(&archive[..archive.len() / 2])?;
        return Err(
            "oplog overflow: mongodump was unable to capture all new oplog entries during execution".into()
        );
    }
    if state.dump_fails {
        out(&archive[..archive.len() / 2])?;
        return Err("error dumping data: connection reset by peer".into());
    }
    out(&archive)
}

/// An archive of everything but `local`, as mongodump writes it.
pub fn archive(state: &State) -> Vec<u8> {
    archive_of(state, None)
}

/// As [`archive`], with `--oplog`.
pub fn archive_with_oplog(state: &State) -> Vec<u8> {
    archive_of(state, Some(&state.oplog))
}

fn archive_of(state: &State, oplog: Option<&Documents>) -> Vec<u8> {
    let terminator = (-1_i32).to_le_bytes();
    let mut bytes = MAGIC.to_le_bytes().to_vec();
    bytes.extend(document(&[
        ("concurrent_collections", Field::Int(4)),
        ("version", Field::Text("0.1")),
        ("server_version", Field::Text(&state.version)),
        ("tool_version", Field::Text("100.9.4")),
    ]));
    let all: Vec<(&String, &String, &Documents)> = state
        .databases
        .iter()
        .filter(|(name, _)| *name != "local")
        .flat_map(|(name, all)| all.iter().map(move |(collection, documents)| (name, collection, documents)))
        .collect();
    for (database, collection, documents) in &all {
        bytes.extend(document(&[
            ("db", Field::Text(database)),
            ("collection", Field::Text(collection)),
            ("metadata", Field::Text("{\"indexes\":[{\"v\":2,\"key\":{\"_id\":1},\"name\":\"_id_\"}]}")),
            ("size", Field::Int(i32::try_from(documents.len()).unwrap())),
            ("type", Field::Text("collection")),
        ]));
    }
    // Without a document on its options and indexes.
    if oplog.is_some() {
        bytes.extend(document(&[("db", Field::Text("")), ("collection", Field::Text("oplog"))]));
    }
    bytes.extend(terminator);
    // The first half of each, then the rest of each and its end.
    for half in [0, 1] {
        for (database, collection, documents) in &all {
            let middle = documents.len() / 2;
            let part = if half == 0 { &documents[..middle] } else { &documents[middle..] };
            bytes.extend(head(database, collection, false, 0));
            part.iter().for_each(|document| bytes.extend(document));
            bytes.extend(terminator);
            if half == 1 {
                bytes.extend(head(database, collection, true, crc(&documents.concat())));
                bytes.extend(terminator);
            }
        }
    }
    // Once all else has been read.
    if let Some(changes) = oplog {
        bytes.extend(head("", "oplog", false, 0));
        bytes.extend(changes.concat());
        bytes.extend(terminator);
        bytes.extend(head("", "oplog", true, crc(&changes.concat())));
        bytes.extend(terminator);
    }
    bytes
}

/// A change as an oplog has it, of this kind to this collection; what it writes is `object`.
pub fn change(kind: &str, ns: &str, object: &[(&str, Field<'_>)]) -> Vec<u8> {
    let object = document(object);
    let fields = [
        ("lsid", Field::Document(&object)),
        ("wall", Field::Date(1_700_000_000_000)),
        ("ui", Field::Uuid([7; 16])),
        ("op", Field::Text(kind)),
        ("ns", Field::Text(ns)),
        ("o", Field::Document(&object)),
    ];
    document(&fields)
}

/// `mongorestore --oplogReplay`: of an archive with nothing in it but an oplog.
fn replay(state: &mut State, excluded: &[String], dir: &Path) -> Result<(), String> {
    if !excluded.is_empty() {
        return Err("cannot use --oplogReplay with excludes specified".into());
    }
    if state.replay_fails || (state.password.is_some() && !state.replays) {
        return Err(
            "restore error: error applying oplog: applyOps: (Unauthorized) not authorized on admin".into()
        );
    }
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    let found = parse(&bytes)?;
    assert_eq!(
        found.keys().map(|(db, name)| (db.as_str(), name.as_str())).collect::<Vec<_>>(),
        [("", "oplog")]
    );
    for change in found.values().flatten() {
        let ns = text_of(change, b"\x02ns\0");
        let (database, collection) = ns.split_once('.').unwrap();
        let at = change.windows(3).rposition(|part| part == b"\x03o\0").unwrap() + 3;
        let length = u32::from_le_bytes(*change[at..].first_chunk().unwrap()) as usize;
        let object = change[at..at + length].to_vec();
        let all =
            state.databases.entry(database.to_owned()).or_default().entry(collection.to_owned()).or_default();
        // Again changes nothing.
        if !all.contains(&object) {
            all.push(object);
        }
    }
    state.write(dir);
    Ok(())
}

fn head(database: &str, collection: &str, ends: bool, crc: u64) -> Vec<u8> {
    document(&[
        ("db", Field::Text(database)),
        ("collection", Field::Text(collection)),
        ("EOF", Field::Truth(ends)),
        ("CRC", Field::Long(crc.cast_signed())),
    ])
}

/// What a field of a document holds.
pub enum Field<'a> {
    /// UTF-8.
    Text(&'a str),
    /// 32 bits.
    Int(i32),
    /// 64 bits.
    Long(i64),
    /// Yes or no.
    Truth(bool),
    /// A document.
    Document(&'a [u8]),
    /// Milliseconds since 1970.
    Date(i64),
    /// What tells a collection from all others.
    Uuid([u8; 16]),
}

/// A BSON document.
pub fn document(fields: &[(&str, Field<'_>)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, field) in fields {
        let (kind, value) = match field {
            Field::Text(text) => {
                let length = i32::try_from(text.len() + 1).unwrap().to_le_bytes();
                (0x02, [&length[..], text.as_bytes(), &[0]].concat())
            }
            Field::Int(number) => (0x10, number.to_le_bytes().to_vec()),
            Field::Long(number) => (0x12, number.to_le_bytes().to_vec()),
            Field::Truth(is) => (0x08, vec![u8::from(*is)]),
            Field::Document(document) => (0x03, document.to_vec()),
            Field::Date(number) => (0x09, number.to_le_bytes().to_vec()),
            Field::Uuid(uuid) => (0x05, [&16_i32.to_le_bytes()[..], &[4], uuid].concat()),
        };
        body.extend([&[kind], name.as_bytes(), &[0], &value[..]].concat());
    }
    let length = i32::try_from(body.len() + 5).unwrap().to_le_bytes();
    [&length[..], &body, &[0]].concat()
}

/// CRC-64 with the ECMA polynomial, bit by bit.
fn crc(bytes: &[u8]) -> u64 {
    let step = |crc: u64, _| if crc & 1 == 1 { (crc >> 1) ^ 0xC96C_5795_D787_0F42 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc: u64, byte| (0..8).fold(crc ^ u64::from(*byte), step))
}

fn restore(state: &mut State, excluded: &[String], dir: &Path) -> Result<(), String> {
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    let mut first = true;
    for ((database, collection), documents) in parse(&bytes)? {
        if excluded.contains(&database) {
            continue;
        }
        let mut documents = documents;
        let fades = state.fading.contains(&collection) && !state.is_scratch;
        if fades {
            documents.truncate(1);
        }
        if state.restore_loses {
            documents.pop();
        }
        if state.restore_alters && !documents.is_empty() {
            documents[0] = document(&[("_id", Field::Long(-1))]);
        }
        state.databases.entry(database).or_default().insert(collection, documents);
        if state.restore_fails && !std::mem::take(&mut first) {
            state.write(dir);
            return Err("shop.orders: error restoring from archive on stdin: connection reset by peer".into());
        }
    }
    state.write(dir);
    Ok(())
}

/// Collections of an archive; its checksums are checked, as mongorestore does.
fn parse(bytes: &[u8]) -> Result<BTreeMap<(String, String), Documents>, String> {
    let corrupt = || "stream or file does not appear to be a mongodump archive".to_owned();
    let mut rest = bytes.strip_prefix(&MAGIC.to_le_bytes()).ok_or_else(corrupt)?;
    let mut next = || -> Option<Vec<u8>> {
        let length = i32::from_le_bytes(*rest.first_chunk()?);
        let length = if length == -1 { 4 } else { usize::try_from(length).ok()? };
        let (one, more) = rest.split_at_checked(length)?;
        rest = more;
        Some(one.to_vec())
    };
    let mut found = BTreeMap::new();
    next().ok_or_else(corrupt)?;
    while let Some(one) = next().filter(|one| one.len() > 4) {
        found.insert(name(&one), Vec::new());
    }
    while let Some(head) = next() {
        let all = found.entry(name(&head)).or_default();
        while let Some(one) = next().filter(|one| one.len() > 4) {
            all.push(one);
        }
        let eof = head.windows(5).position(|part| part == b"\x08EOF\0").ok_or_else(corrupt)?;
        let sum = head.windows(5).position(|part| part == b"\x12CRC\0").ok_or_else(corrupt)?;
        let wanted = u64::from_le_bytes(*head[sum + 5..].first_chunk().ok_or_else(corrupt)?);
        if head[eof + 5] == 1 && crc(&all.concat()) != wanted {
            return Err("CRC mismatch for namespace".into());
        }
    }
    Ok(found)
}

fn name(head: &[u8]) -> (String, String) {
    (text_of(head, b"\x02db\0"), text_of(head, b"\x02collection\0"))
}

fn text_of(document: &[u8], field: &[u8]) -> String {
    let at = document.windows(field.len()).position(|part| part == field).unwrap() + field.len();
    let length = usize::try_from(i32::from_le_bytes(*document[at..].first_chunk().unwrap())).unwrap();
    String::from_utf8(document[at + 4..at + 3 + length].to_vec()).unwrap()
}

fn shell(args: &[&str], state: &mut State, dir: &Path) -> Result<(), String> {
    let ["--quiet", "--norc", "--nodb", path] = args else { return Err(format!("unknown options {args:?}")) };
    let text = secret(path);
    let (first, script) = text.split_once('\n').unwrap();
    assert_eq!(script, SCRIPT, "it knows one script");
    let given = first.strip_prefix("const given = ").unwrap().strip_suffix(';').unwrap();
    let given: Value = serde_json::from_str(given).unwrap();
    let login = match &state.password {
        Some(password) => format!("root:{}@", encoded(password)),
        None => String::new(),
    };
    let port = port(args);
    let wanted = format!("mongodb://{login}127.0.0.1:{port}/admin?directConnection=true&authSource=admin");
    if state.is_down {
        return Err("MongoNetworkError: connect ECONNREFUSED 127.0.0.1:27017".into());
    }
    if given["address"] != wanted {
        return Err("MongoServerError: Authentication failed.".into());
    }
    if state.is_scratch && TcpStream::connect(("127.0.0.1", port)).is_err() {
        return Err(format!("MongoNetworkError: connect ECONNREFUSED 127.0.0.1:{port}"));
    }
    let mut told = Vec::new();
    for (name, all) in &mut state.databases {
        if ["admin", "config", "local"].contains(&name.as_str()) {
            continue;
        }
        let is_kept = |collection: &str| {
            given["keep"][name].as_array().is_some_and(|kept| kept.iter().any(|one| one == collection))
        };
        all.retain(|collection, _| given["drop"] == false || is_kept(collection));
        told.extend(all.iter().map(|(collection, documents)| {
            let fades = state.fading.contains(collection);
            serde_json::json!([name, collection, documents.len(), fades])
        }));
    }
    state.databases.retain(|_, all| !all.is_empty());
    state.write(dir);
    if given["brief"] == true {
        told.clear();
    }
    let mut answer = serde_json::json!({
        "version": state.version,
        "collections": told,
        "member": state.member && !state.is_scratch,
    });
    if given["rights"] == true {
        answer["replays"] = (state.password.is_none() || state.replays).into();
    }
    if given["path"] == true {
        let elsewhere = state.scratch == Scratch::Elsewhere;
        answer["path"] = if elsewhere { "/data/db".into() } else { dir.to_str().unwrap().into() };
    }
    out(format!("skep:{answer}\n").as_bytes())
}

fn encoded(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|b| if is_plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
