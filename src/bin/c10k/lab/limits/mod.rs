//! Limits.

use super::About;

pub(super) const LABS: &[&About] = &[];
