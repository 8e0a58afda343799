//! Limits.

mod client_limit;
mod select_limit;

use super::About;

pub(super) const LABS: &[&About] = &[&client_limit::ABOUT, &select_limit::ABOUT];
