//! The life and death of a connection.

use super::About;

pub(super) const LABS: &[&About] = &[];
