//! What registries have, as the engine asks them.

use std::time::Duration;

use hyper::header::HeaderValue;

use super::{Engine, fine, parse, understood};
use crate::swarm::error::{Effect, Error};
use crate::swarm::object::RegistryAuth;
use crate::swarm::transport::{Call, encode};

/// The engine asks another server, which may be far away, twice.
const PATIENCE: Duration = Duration::from_secs(20);

// === impl Engine ===

impl Engine {
    /// The digest that the registry of an image has for a tag now. The engine asks it, in its own network.
    ///
    /// # Errors
    /// When the registry does not have it, or cannot be asked.
    pub async fn digest(&self, tagged: &str, auth: &RegistryAuth) -> Result<String, Error> {
        let what = format!("looking `{tagged}` up in its registry");
        let segments: Vec<String> = tagged.split('/').map(encode).collect();
        let mut call = Call::get(format!("/distribution/{}/json", segments.join("/")));
        if let RegistryAuth::Header(value) = auth {
            let value = HeaderValue::from_str(value).map_err(|_| Error::Refused {
                what: what.clone(),
                message: "the login cannot be a header".to_owned(),
            })?;
            call.registry_auth = Some(value);
        }
        let answer = self.transport.exchange_within(call, Effect::Read, PATIENCE).await;
        let answer = answer.map_err(|failure| Error::from_failure(&what, Effect::Read, failure))?;
        let found = parse(&what, &fine(&what, Effect::Read, answer)?)?;
        let digest = found["Descriptor"]["digest"].as_str().filter(|digest| is_digest(digest));
        understood(&what, digest.map(str::to_owned).ok_or_else(|| "it holds no digest".to_owned()))
    }
}

/// What stands in a reference of an image behind its `@`.
fn is_digest(text: &str) -> bool {
    let Some((algorithm, hash)) = text.split_once(':') else { return false };
    algorithm == "sha256" && hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_a_digest_is_written_into_a_spec() {
        assert!(is_digest(&format!("sha256:{}", "0a".repeat(32))));
        for text in ["", "sha256:", "sha256:0a", "md5:0a", &format!("sha256:{}", "zz".repeat(32))] {
            assert!(!is_digest(text), "{text}");
        }
    }
}
