//! Limits.

mod client_limit;
mod emfile_spin;
mod measure;
mod select_limit;
mod server_limit;
mod thread_cost;

use super::About;

pub(super) const LABS: &[&About] = &[
    &server_limit::ABOUT,
    &client_limit::ABOUT,
    &emfile_spin::ABOUT,
    &select_limit::ABOUT,
    &thread_cost::ABOUT,
];
