//! Tokens of callers: read from files, compared in constant time, never printed.

use std::fmt;
use std::path::Path;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};
use thiserror::Error;

/// Shorter tokens could be guessed.
const SHORTEST: usize = 16;

/// The tokens that open an endpoint. Several may be valid at once, so that one can be replaced without a gap.
#[derive(Clone, Default)]
pub struct Tokens {
    hashes: Vec<[u8; 32]>,
}

/// Tokens that cannot be used.
#[derive(Debug, Error)]
pub enum Unusable {
    /// No such file, or not readable.
    #[error("the token file `{path}` cannot be read")]
    Unreadable {
        /// Path.
        path: String,
        /// Cause.
        source: std::io::Error,
    },
    /// Nothing in it.
    #[error("the token file `{path}` holds no token")]
    Empty {
        /// Path.
        path: String,
    },
    /// Too short.
    #[error(
        "a token of file `{path}` has fewer than {SHORTEST} characters: `openssl rand -hex 32` makes a good one"
    )]
    Short {
        /// Path.
        path: String,
    },
}

// === impl Tokens ===

impl Tokens {
    /// Reads tokens from a file, one a line; surrounding white space does not count.
    ///
    /// # Errors
    /// When the file cannot be read, is empty, or holds a token that is too short.
    pub fn from_file(path: &Path) -> Result<Tokens, Unusable> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|source| Unusable::Unreadable { path: shown.clone(), source })?;
        let tokens: Vec<&str> = text.lines().map(str::trim).filter(|t| !t.is_empty()).collect();
        if tokens.is_empty() {
            return Err(Unusable::Empty { path: shown });
        }
        if tokens.iter().any(|t| t.len() < SHORTEST) {
            return Err(Unusable::Short { path: shown });
        }
        Ok(Tokens { hashes: tokens.into_iter().map(hash).collect() })
    }

    /// Whether there is any; without one the endpoint stays shut.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// Whether a token is one of these. Takes the same time whatever of it is wrong.
    pub fn accept(&self, token: &str) -> bool {
        let given = hash(token.trim());
        let found = self.hashes.iter().fold(Choice::from(0), |found, known| found | known.ct_eq(&given));
        found.into()
    }

    /// Whether the request carries one of these as `Authorization: Bearer`.
    pub fn accept_header(&self, headers: &HeaderMap) -> bool {
        bearer(headers).is_some_and(|token| self.accept(token))
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokens({} hidden)", self.hashes.len())
    }
}

/// The token of `Authorization: Bearer`.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn of(content: &str) -> Result<Tokens, Unusable> {
        let path = std::env::temp_dir().join(format!(
            "skep-token-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        std::fs::File::create(&path).unwrap().write_all(content.as_bytes()).unwrap();
        let tokens = Tokens::from_file(&path);
        std::fs::remove_file(&path).unwrap();
        tokens
    }

    #[test]
    fn a_token_is_accepted_with_or_without_the_newline_of_its_file() {
        let tokens = of("0123456789abcdef0123\n").unwrap();
        assert!(tokens.accept("0123456789abcdef0123"));
        for wrong in ["", "0123456789abcdef012", "0123456789abcdef01234", "0123456789ABCDEF0123"] {
            assert!(!tokens.accept(wrong), "{wrong}");
        }
    }

    #[test]
    fn two_tokens_are_valid_while_one_replaces_the_other() {
        let tokens = of("an-old-token-of-length\n\n  a-new-token-of-length \n").unwrap();
        assert!(tokens.accept("an-old-token-of-length") && tokens.accept("a-new-token-of-length"));
    }

    #[test]
    fn without_tokens_nothing_is_accepted() {
        assert!(!Tokens::default().accept("") && Tokens::default().is_empty());
        assert!(matches!(of(" \n"), Err(Unusable::Empty { .. })));
        assert!(matches!(of("short"), Err(Unusable::Short { .. })));
        assert!(matches!(
            Tokens::from_file(Path::new("/nonexistent/token")),
            Err(Unusable::Unreadable { .. })
        ));
    }

    #[test]
    fn a_token_is_never_printed() {
        let tokens = of("0123456789abcdef0123").unwrap();
        assert_eq!(format!("{tokens:?}"), "Tokens(1 hidden)");
    }

    #[test]
    fn the_scheme_of_the_header_must_be_bearer() {
        let tokens = of("0123456789abcdef0123").unwrap();
        for (value, fine) in [
            ("Bearer 0123456789abcdef0123", true),
            ("bearer 0123456789abcdef0123", true),
            ("Basic 0123456789abcdef0123", false),
            ("0123456789abcdef0123", false),
            ("Bearer", false),
        ] {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())]);
            assert_eq!(tokens.accept_header(&headers), fine, "{value}");
        }
        assert!(!tokens.accept_header(&HeaderMap::new()));
    }
}
