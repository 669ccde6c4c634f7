//! What each engine needs, as data.

pub mod nginx;
