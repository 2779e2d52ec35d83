//! Smart File Transfer.
