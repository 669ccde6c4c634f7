//! How an artefact is encoded: compressed, then encrypted; and back. Streams, both ways.

use std::io::{self, BufReader, Read, Write};

use age::{DecryptError, Decryptor, Encryptor, Identity, IdentityFile, Recipient};
use serde::{Deserialize, Serialize};
use skep_runner::error::{Error, Result};

/// Of zstd: the default of its command-line tool.
const LEVEL: i32 = 3;
/// Bytes read at once.
const CHUNK: usize = 128 << 10;

/// One layer around the content of an artefact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layer {
    /// Undone by `zstd -d`.
    Zstd,
    /// Undone by `age -d`.
    Age,
}

/// To whom backups are encrypted.
pub struct Recipients(Vec<age::x25519::Recipient>);

/// With what backups are decrypted.
pub struct Identities(Vec<Box<dyn Identity>>);

// === impl Layer ===

impl Layer {
    /// What it adds to the name of a file.
    pub fn suffix(self) -> &'static str {
        match self {
            Layer::Zstd => ".zst",
            Layer::Age => ".age",
        }
    }

    /// The layers of a file, the innermost first. What is compressed already does not become smaller.
    pub fn of(file: &str, encrypt: bool) -> Vec<Layer> {
        let is_compressed = [".dump", ".gz", ".zst", ".xz", ".bz2", ".tgz", ".rdb"];
        let compress = !is_compressed.iter().any(|end| file.ends_with(end));
        [compress.then_some(Layer::Zstd), encrypt.then_some(Layer::Age)].into_iter().flatten().collect()
    }
}

// === impl Recipients ===

impl Recipients {
    /// Reads `age1…` names.
    ///
    /// # Errors
    /// When one is not the public key of age.
    pub fn parse(names: &[String]) -> Result<Recipients> {
        let parse = |name: &String| {
            name.parse().map_err(|why: &str| Error::refused(format!("`{name}` is no age recipient: {why}")))
        };
        Ok(Recipients(names.iter().map(parse).collect::<Result<_>>()?))
    }

    /// Whether there are none, so that nothing is encrypted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

// === impl Identities ===

impl Identities {
    /// None: only what is not encrypted can be read.
    pub fn none() -> Identities {
        Identities(Vec::new())
    }

    /// Reads a file as `age-keygen` writes it.
    ///
    /// # Errors
    /// When it holds no identity; what it holds is never told.
    pub fn parse(file: &[u8]) -> Result<Identities> {
        let wrong =
            "the age identity is not one: want a file as `age-keygen` writes it (`AGE-SECRET-KEY-1…`)";
        let found = IdentityFile::from_buffer(file).map_err(|_| Error::Barred(wrong.to_owned()))?;
        let found = found.into_identities().map_err(|_| Error::Barred(wrong.to_owned()))?;
        if found.is_empty() {
            return Err(Error::Barred(wrong.to_owned()));
        }
        Ok(Identities(found))
    }
}

/// Encodes all of `from` into `to`, and gives `to` back.
///
/// # Errors
/// When something cannot be read, encoded or written.
pub fn encode<W: Write + 'static>(
    from: &mut dyn Read,
    to: W,
    layers: &[Layer],
    recipients: &Recipients,
) -> io::Result<W> {
    let mut buffer = vec![0; CHUNK];
    match layers {
        [] => {
            let mut to = to;
            pump(from, &mut to, &mut buffer)?;
            Ok(to)
        }
        [Layer::Zstd] => {
            let mut zstd = zstd::Encoder::new(to, LEVEL)?;
            zstd.include_checksum(true)?;
            pump(from, &mut zstd, &mut buffer)?;
            zstd.finish()
        }
        [Layer::Age] => {
            let mut age = encryptor(recipients)?.wrap_output(to)?;
            pump(from, &mut age, &mut buffer)?;
            age.finish()
        }
        [Layer::Zstd, Layer::Age] => {
            let mut zstd = zstd::Encoder::new(encryptor(recipients)?.wrap_output(to)?, LEVEL)?;
            zstd.include_checksum(true)?;
            pump(from, &mut zstd, &mut buffer)?;
            zstd.finish()?.finish()
        }
        _ => Err(unknown(layers)),
    }
}

/// A reader of the content inside of the layers.
///
/// # Errors
/// Where no identity fits, or the layers are none that this version knows.
pub fn decode<'a>(
    from: impl Read + 'a,
    layers: &[Layer],
    identities: &Identities,
) -> Result<Box<dyn Read + 'a>> {
    let broken = Error::io("cannot decode");
    Ok(match layers {
        [] => Box::new(from),
        [Layer::Zstd] => Box::new(zstd::Decoder::new(from).map_err(broken)?),
        [Layer::Age] => Box::new(decrypted(from, identities)?),
        [Layer::Zstd, Layer::Age] => {
            Box::new(zstd::Decoder::new(decrypted(from, identities)?).map_err(broken)?)
        }
        _ => return Err(Error::io("cannot decode")(unknown(layers))),
    })
}

/// Copies everything.
fn pump(from: &mut dyn Read, to: &mut dyn Write, buffer: &mut [u8]) -> io::Result<()> {
    loop {
        match from.read(buffer)? {
            0 => return Ok(()),
            read => to.write_all(&buffer[..read])?,
        }
    }
}

fn encryptor(recipients: &Recipients) -> io::Result<Encryptor> {
    let recipients = recipients.0.iter().map(|r| r as &dyn Recipient);
    Encryptor::with_recipients(recipients).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))
}

fn decrypted<'a>(from: impl Read + 'a, identities: &Identities) -> Result<impl Read + 'a> {
    if identities.0.is_empty() {
        return Err(Error::Barred("it is encrypted, and no age identity is configured".to_owned()));
    }
    let wrong = |error: DecryptError| match error {
        DecryptError::NoMatchingKeys => {
            Error::Barred("it is encrypted to other keys than the configured age identity".to_owned())
        }
        DecryptError::Io(source) => Error::io("cannot decrypt")(source),
        other => Error::refused(format!("cannot decrypt: {other}")),
    };
    let decryptor = Decryptor::new(BufReader::with_capacity(CHUNK, from)).map_err(wrong)?;
    decryptor.decrypt(identities.0.iter().map(|i| &**i)).map_err(wrong)
}

fn unknown(layers: &[Layer]) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("layers in an order that is not known: {layers:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> (Recipients, Identities) {
        let identity = age::x25519::Identity::generate();
        (Recipients(vec![identity.to_public()]), Identities(vec![Box::new(identity)]))
    }

    fn read(coded: &[u8], layers: &[Layer], identities: &Identities) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        decode(coded, layers, identities)?.read_to_end(&mut out).map_err(Error::io("cannot decode"))?;
        Ok(out)
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        let (recipients, identities) = key();
        let content: Vec<u8> = (0..3_000_000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        for file in ["a.sql", "a.dump"] {
            for encrypt in [false, true] {
                let layers = Layer::of(file, encrypt);
                let coded = encode(&mut content.as_slice(), Vec::new(), &layers, &recipients).unwrap();
                assert_eq!(coded == content, layers.is_empty());
                assert!(read(&coded, &layers, &identities).unwrap() == content, "{layers:?}");
            }
        }
    }

    #[test]
    fn what_was_altered_or_cut_is_not_decoded() {
        let (recipients, identities) = key();
        let content = vec![7; 500_000];
        for layers in [vec![Layer::Zstd], vec![Layer::Age], vec![Layer::Zstd, Layer::Age]] {
            let coded = encode(&mut content.as_slice(), Vec::new(), &layers, &recipients).unwrap();
            assert!(read(&coded[..coded.len() - 1], &layers, &identities).is_err(), "{layers:?} cut");
            let mut altered = coded.clone();
            let last = altered.len() - 2;
            altered[last] ^= 1;
            assert!(read(&altered, &layers, &identities).is_err(), "{layers:?} altered");
        }
    }

    #[test]
    fn another_key_and_no_key_are_told_apart() {
        let (recipients, _) = key();
        let coded = encode(&mut &b"x"[..], Vec::new(), &[Layer::Age], &recipients).unwrap();
        let other = read(&coded, &[Layer::Age], &key().1).unwrap_err().to_string();
        assert!(other.contains("other keys"), "{other}");
        let none = read(&coded, &[Layer::Age], &Identities::none()).unwrap_err().to_string();
        assert!(none.contains("no age identity is configured"), "{none}");
    }

    #[test]
    fn what_is_no_key_is_not_repeated() {
        let secret = "AGE-SECRET-KEY-1QQQQQQQQQQQQQQQQQ";
        let told = Identities::parse(secret.as_bytes()).err().unwrap().chain();
        assert!(!told.contains("QQQ"), "{told}");
        assert!(Recipients::parse(&["age1nonsense".to_owned()]).is_err());
    }
}
