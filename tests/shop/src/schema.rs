//! The shop's tables, made once: a table that somebody drops later stays dropped.

use crate::database::{Database, Error};

/// Numbered steps; each runs once, in one transaction with the note that it ran.
const STEPS: [&str; 2] = [
    "
    CREATE SCHEMA sales;
    CREATE TABLE products (
        id integer PRIMARY KEY,
        name text NOT NULL,
        price_cents integer NOT NULL CHECK (price_cents > 0)
    );
    CREATE TABLE orders (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        product integer NOT NULL REFERENCES products,
        quantity integer NOT NULL CHECK (quantity > 0),
        note text NOT NULL DEFAULT '',
        is_done boolean NOT NULL DEFAULT false,
        placed_at timestamptz NOT NULL DEFAULT clock_timestamp()
    );
    CREATE INDEX orders_to_do ON orders (id) WHERE NOT is_done;
    CREATE TABLE sales.ledger (
        order_id bigint PRIMARY KEY REFERENCES orders ON DELETE CASCADE,
        amount_cents bigint NOT NULL,
        booked_at timestamptz NOT NULL DEFAULT clock_timestamp()
    );
    CREATE TABLE sales.totals (orders bigint NOT NULL);
    CREATE VIEW sales.best_sellers AS
        SELECT product, sum(quantity) AS sold FROM orders GROUP BY product ORDER BY sold DESC;
    ",
    "
    INSERT INTO products VALUES
        (1, 'Smoker', 3490), (2, 'Veil', 1990), (3, 'Hive tool', 1290), (4, 'Bee brush', 690),
        (5, 'Frame', 240), (6, 'Foundation', 180), (7, 'Skep', 8900), (8, 'Honey jar', 95),
        (9, 'Queen cage', 350), (10, 'Gloves', 2450), (11, 'Extractor', 39900), (12, 'Feeder', 1150);
    INSERT INTO orders (product, quantity, note, is_done)
        SELECT 1 + n % 12, 1 + n % 5, repeat(md5(n::text), 3), true FROM generate_series(1, {seed_orders}) n;
    INSERT INTO sales.ledger (order_id, amount_cents)
        SELECT orders.id, quantity * price_cents FROM orders JOIN products ON products.id = product;
    INSERT INTO sales.totals SELECT count(*) FROM orders;
    ",
];

/// Brings the schema up to date; several processes may try at once. Returns the steps that ran.
pub async fn migrate(database: &Database, seed_orders: i32) -> Result<usize, Error> {
    let done = done_steps(database).await?;
    for (number, step) in STEPS.iter().enumerate().skip(done) {
        let step = step.replace("{seed_orders}", &seed_orders.to_string());
        database.script(&one_step(number, &step)).await?;
    }
    Ok(STEPS.len().saturating_sub(done))
}

async fn done_steps(database: &Database) -> Result<usize, Error> {
    let exists = database.read("SELECT to_regclass('public.schema_steps') IS NOT NULL", &[]).await?;
    if !exists[0].get::<_, bool>(0) {
        return Ok(0);
    }
    let rows = database.read("SELECT count(*) FROM public.schema_steps", &[]).await?;
    Ok(usize::try_from(rows[0].get::<_, i64>(0)).unwrap_or_default())
}

/// The step in a transaction that does nothing where the step has run: others may have been quicker.
fn one_step(number: usize, step: &str) -> String {
    format!(
        "BEGIN;
        SELECT pg_advisory_xact_lock(7305);
        CREATE TABLE IF NOT EXISTS public.schema_steps (
            number integer PRIMARY KEY, ran_at timestamptz NOT NULL DEFAULT clock_timestamp()
        );
        DO $shop$ BEGIN
            IF NOT EXISTS (SELECT FROM public.schema_steps WHERE number = {number}) THEN
                {step}
                INSERT INTO public.schema_steps (number) VALUES ({number});
            END IF;
        END $shop$;
        COMMIT;"
    )
}
