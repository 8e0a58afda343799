//! Limits.

mod client_limit;
mod measure;
mod select_limit;
mod server_limit;

use super::About;

pub(super) const LABS: &[&About] =
    &[&server_limit::ABOUT, &client_limit::ABOUT, &select_limit::ABOUT];
