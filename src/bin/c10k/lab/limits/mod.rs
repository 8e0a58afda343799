//! Limits.

mod client_limit;

use super::About;

pub(super) const LABS: &[&About] = &[&client_limit::ABOUT];
