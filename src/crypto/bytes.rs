//! Short byte strings that are public, fixed in length and shown as hex.

/// Defines a newtype over `[u8; N]` with `from_bytes`, `as_bytes` and lower-case hex as `Display` and `Debug`.
macro_rules! hex_bytes {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// Takes the bytes as they are.
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// The bytes as they stand in a container.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
    };
}

hex_bytes! {
    /// Says which `ENCRYPTION_KEY` a container was sealed under, without saying anything about the key.
    KeyId, 8
}

hex_bytes! {
    /// The random value that makes the key of each container its own. Public; names the container in the status file.
    FileNonce, 16
}

hex_bytes! {
    /// An EAX tag. Public; the last one of a container is told to clients as the `tag` of the file.
    Tag, 16
}
