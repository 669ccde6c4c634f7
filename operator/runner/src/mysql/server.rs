//! What is asked of a server.

use super::client::Place;
use crate::error::{Error, Result};
use crate::job::Job;
use crate::task::{Connect, MysqlSettings, ServerSettings};

/// Schemas that are views of the server itself.
const VIRTUAL: &str = "'information_schema', 'performance_schema'";

/// Version and settings of a running server.
pub(crate) fn ask(job: &Job, connect: &Connect) -> Result<(String, ServerSettings)> {
    asked(&Place::network(job, connect)?)
}

/// As [`ask`], of a known place.
pub(super) fn asked(place: &Place<'_>) -> Result<(String, ServerSettings)> {
    let rows = place.query(
        None,
        "SELECT VERSION(), @@innodb_page_size, @@innodb_data_file_path, @@lower_case_table_names,
           @@character_set_server, @@collation_server",
    )?;
    let row = rows.first().map(|row| row.split('\t').collect::<Vec<_>>()).unwrap_or_default();
    let [version, page_size, data_file_path, lower, character_set, collation] = row.as_slice() else {
        return Err(Error::refused("the server does not tell its settings"));
    };
    let odd = |_| Error::refused("the server tells odd settings");
    Ok((
        (*version).to_owned(),
        ServerSettings::Mysql(MysqlSettings {
            page_size: page_size.parse().map_err(odd)?,
            data_file_path: (*data_file_path).to_owned(),
            lower_case_table_names: lower.parse().map_err(odd)?,
            character_set: (*character_set).to_owned(),
            collation: (*collation).to_owned(),
        }),
    ))
}

/// Names of the databases that are data. A directory beside the data, such as one of Skep's, shows as `#mysql50#…`.
pub(super) fn databases(place: &Place<'_>) -> Result<Vec<String>> {
    let sql = format!(
        "SELECT schema_name FROM information_schema.schemata
         WHERE schema_name NOT IN ({VIRTUAL}, 'sys') AND schema_name NOT LIKE '#mysql50#%' ORDER BY 1"
    );
    place.query(None, &sql)
}

/// Number of tables and bytes in them, without those of the server itself.
pub(super) fn tables(place: &Place<'_>) -> Result<(u64, u64)> {
    numbers(place, "SELECT COUNT(*), COALESCE(SUM(data_length + index_length), 0)", "")
}

/// Number of tables of engines without transactions.
pub(super) fn plain_tables(place: &Place<'_>) -> Result<u64> {
    Ok(numbers(place, "SELECT COUNT(*), 0", "AND engine NOT IN ('InnoDB', 'ROCKSDB')")?.0)
}

fn numbers(place: &Place<'_>, select: &str, and: &str) -> Result<(u64, u64)> {
    let rows = place.query(
        None,
        &format!(
            "{select} FROM information_schema.tables WHERE table_type IN ('BASE TABLE', 'SEQUENCE')
             AND table_schema NOT IN ({VIRTUAL}, 'mysql', 'sys') AND table_schema NOT LIKE '#mysql50#%' {and}"
        ),
    )?;
    let numbers = rows.first().and_then(|row| row.split_once('\t'));
    let numbers = numbers.and_then(|(count, bytes)| Some((count.parse().ok()?, bytes.parse().ok()?)));
    numbers.ok_or_else(|| Error::refused("the server does not count its tables"))
}
