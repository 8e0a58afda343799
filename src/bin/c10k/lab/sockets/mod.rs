//! Sockets and the four-tuple.

mod four_tuple;

use super::About;

pub(super) const LABS: &[&About] = &[&four_tuple::ABOUT];
