//! Commands and states as bytes.
