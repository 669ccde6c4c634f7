//! The demo application: a small shop that keeps orders in PostgreSQL and a product list in Redis.
//!
//! ```text
//! serve:  web ─▶ database (orders, products)      worker:  database: new orders ─▶ sales.ledger
//!             └▶ cache (product list)
//! streams: nothing but itself; uploads, downloads, WebSockets, calls      forward: a proxy of connections
//! ```
//!
//! Two properties matter to whoever operates it. It never pins an address: each new connection looks the name up. And
//! it never leaves a client hanging: every answer comes within a few seconds and carries `X-Shop: 1`.

pub mod cache;
pub mod database;
pub mod forward;
pub mod frames;
pub mod schema;
pub mod settings;
pub mod streams;
pub mod web;
pub mod worker;

pub use settings::Settings;
