//! Who may do what: API keys.

use sha2::{Digest as _, Sha256};

/// Which requests need a key.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    /// Those that are documented to: administration and deletion.
    #[default]
    Documented,
    /// All but `/health` and `/ready`.
    All,
}

/// Why a request is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// A key is needed and none was sent.
    #[error("an API key is required: send it as X-API-Key")]
    Required,
    /// The key is not known.
    #[error("the API key is not valid")]
    Invalid,
}

/// The keys of this server. Kept as SHA-256: a key is 16 bytes or more of the operator's choosing, and none is in
/// memory or compared in a time that tells how much of it was right.
#[derive(Debug, Clone)]
pub struct Access {
    auth: Auth,
    operator: Vec<[u8; 32]>,
}

impl Access {
    /// Lets in who `auth` says, with these keys.
    pub fn new<'a>(auth: Auth, operator: impl IntoIterator<Item = &'a str>) -> Self {
        Self { auth, operator: operator.into_iter().map(digest).collect() }
    }

    /// Checks the key of a request; `open`: an endpoint that needs none even where all others do.
    ///
    /// # Errors
    /// A wrong key is refused on open endpoints too: who sends one means it.
    pub fn check(&self, key: Option<&str>, open: bool) -> Result<(), AccessError> {
        match key.map(digest) {
            // Digests of equal keys are equal; how far two digests agree tells nothing of the key.
            Some(digest) if self.operator.contains(&digest) => Ok(()),
            Some(_) => Err(AccessError::Invalid),
            None if self.auth == Auth::All && !open => Err(AccessError::Required),
            None => Ok(()),
        }
    }
}

fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_key_is_refused_everywhere_and_a_missing_one_where_it_is_needed() {
        let documented = Access::new(Auth::Documented, ["a-key-of-the-operator"]);
        let all = Access::new(Auth::All, ["a-key-of-the-operator"]);
        for (access, key, open, expected) in [
            (&documented, None, false, Ok(())),
            (&documented, Some("a-key-of-the-operator"), false, Ok(())),
            (&documented, Some("wrong"), true, Err(AccessError::Invalid)),
            (&all, None, false, Err(AccessError::Required)),
            (&all, None, true, Ok(())),
            (&all, Some("a-key-of-the-operator"), false, Ok(())),
            (&all, Some(""), false, Err(AccessError::Invalid)),
        ] {
            assert_eq!(access.check(key, open), expected, "{key:?} {open}");
        }
    }
}
