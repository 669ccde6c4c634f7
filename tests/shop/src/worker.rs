//! The worker: books new orders in the ledger, a few at a time.

use std::time::Duration;

use tokio::time::sleep;

use crate::database::{Database, Error};

/// Pause where there was nothing to do, or no database.
const PAUSE: Duration = Duration::from_millis(200);

/// One statement, so an order is booked once or not at all, also with several workers.
const BOOK: &str = "
    WITH batch AS (
        SELECT id FROM orders WHERE NOT is_done ORDER BY id LIMIT 50 FOR UPDATE SKIP LOCKED
    ), done AS (
        UPDATE orders SET is_done = true FROM batch, products
        WHERE orders.id = batch.id AND products.id = orders.product
        RETURNING orders.id, quantity * price_cents AS amount_cents
    )
    INSERT INTO sales.ledger (order_id, amount_cents) SELECT id, amount_cents FROM done RETURNING order_id";

/// Books orders until `stop` resolves; what is under way is finished first.
pub async fn run(database: &Database, stop: impl Future<Output = ()>) {
    let mut stop = std::pin::pin!(stop);
    let mut told = String::new();
    loop {
        let booked = book(database).await.unwrap_or_else(|error| {
            let reason = error.reason();
            if reason != told {
                tracing::warn!(%error, reason, "could not book orders");
                told = reason;
            }
            0
        });
        let pause = if booked == 0 { PAUSE } else { Duration::ZERO };
        tokio::select! {
            () = &mut stop => return,
            () = sleep(pause) => {}
        }
    }
}

async fn book(database: &Database) -> Result<usize, Error> {
    Ok(database.write(BOOK, &[]).await?.len())
}
