//! References of images: `[registry/]name[:tag][@digest]`.

/// One, as it stands in a spec or as a person writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference<'a> {
    /// Registry and name, as they were written.
    pub name: &'a str,
    /// The tag, where there is one.
    pub tag: Option<&'a str>,
    /// The digest, where there is one.
    pub digest: Option<&'a str>,
}

// === impl Reference ===

impl<'a> Reference<'a> {
    /// Takes a reference to pieces. Nothing is checked: what is no reference comes to one that names nothing that is there.
    pub fn of(text: &'a str) -> Reference<'a> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        // A colon before a slash is that of a port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            Some(_) | None => (rest, None),
        };
        Reference { name, tag, digest }
    }

    /// The repository: the same for every way in which people write it.
    pub fn repository(&self) -> &'a str {
        let name = self.name.strip_prefix("index.").unwrap_or(self.name);
        let Some(name) = name.strip_prefix("docker.io/") else {
            return name.strip_prefix("library/").unwrap_or(name);
        };
        name.strip_prefix("library/").unwrap_or(name)
    }

    /// What a registry is asked for: the name with the tag, `latest` where there is none.
    pub fn tagged(&self) -> String {
        format!("{}:{}", self.name, self.tag.unwrap_or("latest"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_comes_to_pieces_as_the_engine_has_it() {
        let of = |text| {
            let Reference { name, tag, digest } = Reference::of(text);
            (name, tag, digest)
        };
        assert_eq!(of("nginx"), ("nginx", None, None));
        assert_eq!(of("nginx:1.27"), ("nginx", Some("1.27"), None));
        assert_eq!(of("127.0.0.1:5000/shop"), ("127.0.0.1:5000/shop", None, None));
        assert_eq!(
            of("registry.example.org:5000/team/app:2@sha256:ab"),
            ("registry.example.org:5000/team/app", Some("2"), Some("sha256:ab"))
        );
        assert_eq!(of("app@sha256:ab"), ("app", None, Some("sha256:ab")));
        assert_eq!(of(""), ("", None, None));
        assert_eq!(Reference::of("app@sha256:ab").tagged(), "app:latest");
    }

    #[test]
    fn one_repository_is_the_same_however_it_is_written() {
        for text in [
            "nginx",
            "nginx:1",
            "library/nginx",
            "docker.io/nginx",
            "docker.io/library/nginx:2",
            "index.docker.io/library/nginx",
        ] {
            assert_eq!(Reference::of(text).repository(), "nginx", "{text}");
        }
        for (one, other) in [("team/nginx", "nginx"), ("a:5000/app", "app"), ("a:5000/app", "b:5000/app")] {
            assert_ne!(Reference::of(one).repository(), Reference::of(other).repository(), "{one}");
        }
    }
}
