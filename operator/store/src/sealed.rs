//! `manifest.json` of a backup whose files are encoded: what is in the store, how to undo the encoding, and the manifest
//! of what is inside.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use skep_runner::error::{Error, Result};
use skep_runner::manifest::{MANIFEST, Manifest, SEALED, SEALED_SCHEMA};
use skep_runner::store::sha256_of;

use crate::code::Layer;

/// The sealed manifest.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sealed {
    /// [`SEALED`].
    pub format: String,
    /// Format version.
    pub schema: u32,
    /// Backup id.
    pub id: String,
    /// How to restore by hand.
    pub by_hand: Vec<String>,
    /// The age recipients; none where it is not encrypted.
    pub recipients: Vec<String>,
    /// The files in the store.
    pub files: Vec<Coded>,
    /// SHA-256 of the manifest inside, with its line end.
    pub manifest_sha256: String,
    /// The manifest inside, byte for byte, without its line end.
    pub manifest: Box<RawValue>,
}

/// One encoded file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coded {
    /// Its name in the store.
    pub file: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its lower-case hexadecimal SHA-256.
    pub sha256: String,
    /// The artefact that is in it.
    pub of: String,
    /// What is around the artefact, the innermost first.
    pub layers: Vec<Layer>,
}

/// The files of a stored backup, encoded or not.
pub enum Found {
    /// As the database's tools wrote them.
    Plain(Box<Manifest>),
    /// Encoded.
    Sealed(Box<Sealed>, Box<Manifest>),
}

// === impl Sealed ===

impl Sealed {
    /// The sealed manifest around the manifest of these bytes.
    ///
    /// # Errors
    /// When these are no manifest.
    pub fn new(inner: &[u8], recipients: Vec<String>, files: Vec<Coded>) -> Result<Sealed> {
        let manifest = understood(inner)?;
        let text = std::str::from_utf8(inner).map_err(|_| Error::refused("a manifest is not text"))?;
        let raw = RawValue::from_string(text.trim_end().to_owned());
        let raw = raw.map_err(|e| Error::refused(format!("cannot read the manifest: {e}")))?;
        let sealed = Sealed {
            format: SEALED.to_owned(),
            schema: SEALED_SCHEMA,
            id: manifest.id,
            by_hand: by_hand(&files),
            recipients,
            files,
            manifest_sha256: sha256_of(inner),
            manifest: raw,
        };
        if sealed.inner() != inner {
            return Err(Error::refused("the manifest does not end with one line end"));
        }
        Ok(sealed)
    }

    /// The bytes of the manifest inside.
    pub fn inner(&self) -> Vec<u8> {
        format!("{}\n", self.manifest.get()).into_bytes()
    }

    /// As it stands in a store.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("a manifest has string keys only");
        bytes.push(b'\n');
        bytes
    }
}

// === impl Found ===

impl Found {
    /// Reads the manifest of a stored backup.
    ///
    /// # Errors
    /// When it is none, a newer Skep's, another backup's, or contradicts itself.
    pub fn read(bytes: &[u8], id: &str) -> Result<Found> {
        #[derive(Deserialize)]
        struct Kind {
            #[serde(default)]
            format: String,
        }
        let wrong =
            |e: serde_json::Error| Error::refused(format!("cannot read the manifest of backup {id}: {e}"));
        let kind: Kind = serde_json::from_slice(bytes).map_err(wrong)?;
        let found = if kind.format == SEALED {
            let sealed: Sealed = serde_json::from_slice(bytes).map_err(wrong)?;
            if sealed.schema > SEALED_SCHEMA {
                return Err(Error::refused(format!("backup {id} was written by a newer Skep")));
            }
            let inner = sealed.inner();
            if sha256_of(&inner) != sealed.manifest_sha256 {
                return Err(Error::refused(format!(
                    "the manifest inside of backup {id} is not the one sealed"
                )));
            }
            let manifest = understood(&inner)?;
            let artefacts: Vec<&str> = manifest.artefacts.iter().map(|a| a.file.as_str()).collect();
            let inside: Vec<&str> = sealed.files.iter().map(|f| f.of.as_str()).collect();
            if artefacts != inside {
                return Err(Error::refused(format!(
                    "backup {id} does not hold the artefacts of its manifest"
                )));
            }
            Found::Sealed(Box::new(sealed), Box::new(manifest))
        } else {
            Found::Plain(Box::new(understood(bytes)?))
        };
        if found.manifest().id != id {
            let other = &found.manifest().id;
            return Err(Error::refused(format!("the manifest of backup {id} is that of backup {other}")));
        }
        Ok(found)
    }

    /// What is inside.
    pub fn manifest(&self) -> &Manifest {
        match self {
            Found::Plain(manifest) | Found::Sealed(_, manifest) => manifest,
        }
    }

    /// The files in the store.
    pub fn files(&self) -> Vec<Coded> {
        match self {
            Found::Sealed(sealed, _) => sealed.files.clone(),
            Found::Plain(manifest) => {
                let plain = |a: &skep_runner::Artefact| Coded {
                    file: a.file.clone(),
                    size: a.size,
                    sha256: a.sha256.clone(),
                    of: a.file.clone(),
                    layers: Vec::new(),
                };
                manifest.artefacts.iter().map(plain).collect()
            }
        }
    }

    /// The bytes of the manifest inside; `stored` are those of the manifest in the store.
    pub fn inner(&self, stored: &[u8]) -> Vec<u8> {
        match self {
            Found::Plain(_) => stored.to_vec(),
            Found::Sealed(sealed, _) => sealed.inner(),
        }
    }
}

fn understood(bytes: &[u8]) -> Result<Manifest> {
    let manifest: Manifest = serde_json::from_slice(bytes)
        .map_err(|e| Error::refused(format!("cannot read the manifest of a backup: {e}")))?;
    if manifest.schema > skep_runner::SCHEMA {
        return Err(Error::refused(format!("backup {} was written by a newer Skep", manifest.id)));
    }
    Ok(manifest)
}

/// The commands that bring the artefacts back.
fn by_hand(files: &[Coded]) -> Vec<String> {
    let mut lines = vec![format!(
        "Compare each file with its sha256 in this {MANIFEST} (sha256sum), then undo what is around it:"
    )];
    for file in files {
        let undo: Vec<String> = file
            .layers
            .iter()
            .rev()
            .map(|layer| match layer {
                Layer::Age => format!("age -d -i identity.txt {}", file.file),
                Layer::Zstd if file.layers.contains(&Layer::Age) => "zstd -d".to_owned(),
                Layer::Zstd => format!("zstd -d < {}", file.file),
            })
            .collect();
        if !undo.is_empty() {
            lines.push(format!("{} > {}", undo.join(" | "), file.of));
        }
    }
    lines.push("Then restore with the engine's own tool; `manifest` says which wrote it.".to_owned());
    lines
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn inner(id: &str, artefacts: Vec<skep_runner::Artefact>) -> Vec<u8> {
        let manifest = Manifest {
            schema: skep_runner::SCHEMA,
            id: id.to_owned(),
            service: "shop_db".to_owned(),
            engine: "postgres".to_owned(),
            image: "postgres:17".to_owned(),
            spec: serde_json::json!({"z": 1, "a": 2}),
            server_version: "170000".to_owned(),
            tool_version: "pg_dump 17".to_owned(),
            started: "2026-01-01T00:00:00Z".to_owned(),
            ended: "2026-01-01T00:00:01Z".to_owned(),
            artefacts,
            database: None,
            contents: None,
            base: None,
            roles: None,
        };
        let mut bytes = serde_json::to_vec_pretty(&manifest).unwrap();
        bytes.push(b'\n');
        bytes
    }

    fn coded(of: &str) -> Coded {
        Coded {
            file: format!("{of}.zst.age"),
            size: 1,
            sha256: "0".repeat(64),
            of: of.to_owned(),
            layers: vec![Layer::Zstd, Layer::Age],
        }
    }

    fn artefact(file: &str) -> skep_runner::Artefact {
        skep_runner::Artefact { file: file.to_owned(), size: 1, sha256: "1".repeat(64) }
    }

    #[test]
    fn the_manifest_inside_comes_back_byte_for_byte() {
        let inner = inner("b1", vec![artefact("roles.sql")]);
        let sealed = Sealed::new(&inner, vec!["age1x".to_owned()], vec![coded("roles.sql")]).unwrap();
        let bytes = sealed.bytes();
        let found = Found::read(&bytes, "b1").unwrap();
        assert_eq!(found.inner(&bytes), inner);
        assert_eq!(found.files(), [coded("roles.sql")]);
        assert!(
            sealed
                .by_hand
                .contains(&"age -d -i identity.txt roles.sql.zst.age | zstd -d > roles.sql".to_owned())
        );
    }

    #[test]
    fn a_manifest_that_contradicts_itself_is_refused() {
        let inner = inner("b1", vec![artefact("roles.sql")]);
        let sealed = Sealed::new(&inner, Vec::new(), vec![coded("other.sql")]).unwrap();
        assert!(Found::read(&sealed.bytes(), "b1").is_err(), "another artefact");
        let sealed = Sealed::new(&inner, Vec::new(), vec![coded("roles.sql")]).unwrap();
        assert!(Found::read(&sealed.bytes(), "b2").is_err(), "another backup");
        let newer = Sealed { schema: SEALED_SCHEMA + 1, ..sealed.clone() };
        assert!(Found::read(&newer.bytes(), "b1").is_err(), "a newer format");
        let altered = Sealed { manifest_sha256: "2".repeat(64), ..sealed };
        assert!(Found::read(&altered.bytes(), "b1").is_err(), "another manifest inside");
    }
}
