//! The shop's HTTP side.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

use crate::cache::Cache;
use crate::database::{Database, Error};
use crate::{Settings, schema};

/// Where the product list is cached.
const PRODUCTS_KEY: &str = "shop:products";
/// Longest time that requests under way may take once the listener is closed.
const LAST_REQUESTS: Duration = Duration::from_secs(5);

/// What the handlers share.
pub struct Shop {
    database: Database,
    cache: Cache,
    is_ready: AtomicBool,
    is_leaving: AtomicBool,
}

/// A new order; both fields may be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NewOrder {
    product: Option<i32>,
    quantity: Option<i32>,
}

// === impl Shop ===

impl Shop {
    /// A shop that has not connected to anything yet.
    pub fn new(settings: &Settings) -> Arc<Self> {
        Arc::new(Self {
            database: Database::new(settings.clone()),
            cache: Cache::new(settings.cache_host.as_deref(), settings.cache_port),
            is_ready: AtomicBool::new(false),
            is_leaving: AtomicBool::new(false),
        })
    }

    /// Makes the schema, trying until the database is there.
    pub async fn prepare(&self, seed_orders: i32) {
        let mut told = String::new();
        while let Err(error) = schema::migrate(&self.database, seed_orders).await {
            let reason = error.reason();
            if reason != told {
                tracing::info!(%error, reason, "the schema is not there yet");
                told = reason;
            }
            sleep(Duration::from_millis(100)).await;
        }
        self.is_ready.store(true, Ordering::Relaxed);
    }

    async fn products(&self) -> Result<(Value, bool), Error> {
        if let Some(text) = self.cache.get(PRODUCTS_KEY).await
            && let Ok(products) = serde_json::from_str(&text)
        {
            return Ok((products, true));
        }
        let rows = self.database.read("SELECT name FROM products ORDER BY id", &[]).await?;
        let products: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let products = json!(products);
        self.cache.set(PRODUCTS_KEY, &products.to_string()).await;
        Ok((products, false))
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = match self {
            Self::Refused(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unreachable(_) | Self::Password(_) | Self::Ended(_) | Self::Slow => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        };
        let body = json!({ "error": self.to_string(), "reason": self.reason() });
        (status, Json(body)).into_response()
    }
}

/// The shop's routes.
pub fn router(shop: Arc<Shop>) -> Router {
    Router::new()
        .route("/", get(front))
        .route("/orders", post(order))
        .route("/orders/last", get(last_order))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .layer(middleware::from_fn_with_state(Arc::clone(&shop), stamp))
        .with_state(shop)
}

/// Serves until `stop` resolves, then for the drain time, then until the last answers are out.
pub async fn serve(
    listener: TcpListener,
    shop: Arc<Shop>,
    drain: Duration,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let (leave, mut left) = tokio::sync::watch::channel(false);
    let app = router(Arc::clone(&shop));
    // New connections are taken during the drain, and every answer then closes its connection: nobody who still has
    // our address, or a connection kept alive, is cut off in the middle of asking.
    let serving = axum::serve(listener, app).with_graceful_shutdown(async move {
        stop.await;
        shop.is_leaving.store(true, Ordering::Relaxed);
        sleep(drain).await;
        leave.send_replace(true);
    });
    let overtime = async move {
        drop(left.wait_for(|left| *left).await);
        sleep(LAST_REQUESTS).await;
    };
    tokio::select! {
        ended = serving.into_future() => ended,
        () = overtime => Ok(()),
    }
}

/// Marks every answer as the shop's own.
async fn stamp(State(shop): State<Arc<Shop>>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().insert("x-shop", HeaderValue::from_static("1"));
    if shop.is_leaving.load(Ordering::Relaxed) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn front(State(shop): State<Arc<Shop>>) -> Result<Json<Value>, Error> {
    let (products, cached) = shop.products().await?;
    let rows =
        shop.database.read("SELECT orders, (SELECT max(id) FROM orders) FROM sales.totals", &[]).await?;
    let (orders, last): (Option<i64>, Option<i64>) =
        rows.first().map_or((None, None), |row| (row.get(0), row.get(1)));
    let count = products.as_array().map_or(0, Vec::len);
    Ok(Json(json!({ "orders": orders, "last_order": last, "products": count, "products_cached": cached })))
}

async fn order(State(shop): State<Arc<Shop>>, order: Option<Json<NewOrder>>) -> Result<Response, Error> {
    let NewOrder { product, quantity } = order.unwrap_or_default().0;
    let (product, quantity) = (product.unwrap_or_else(|| rand::random_range(1..=12)), quantity.unwrap_or(1));
    let sql = "WITH placed AS (INSERT INTO orders (product, quantity) VALUES ($1, $2) RETURNING id),
            counted AS (UPDATE sales.totals SET orders = orders + 1)
        SELECT id FROM placed";
    let rows = shop.database.write(sql, &[&product, &quantity]).await?;
    let id: Option<i64> = rows.first().map(|row| row.get(0));
    Ok((StatusCode::CREATED, Json(json!({ "id": id }))).into_response())
}

async fn last_order(State(shop): State<Arc<Shop>>) -> Result<Json<Value>, Error> {
    let sql = "SELECT id, placed_at::text, is_done FROM orders ORDER BY id DESC LIMIT 1";
    let rows = shop.database.read(sql, &[]).await?;
    let last = rows.first().map(|row| {
        let (id, placed_at, is_done): (i64, String, bool) = (row.get(0), row.get(1), row.get(2));
        json!({ "id": id, "placed_at": placed_at, "is_done": is_done })
    });
    Ok(Json(json!({ "order": last })))
}

/// Whether this process and its database can work; says nothing about single tables, which a restart would not mend.
async fn health(State(shop): State<Arc<Shop>>) -> Response {
    if !shop.is_ready.load(Ordering::Relaxed) {
        return (StatusCode::SERVICE_UNAVAILABLE, "the schema is not there yet\n").into_response();
    }
    match shop.database.read("SELECT count(*) FROM pg_catalog.pg_database", &[]).await {
        Ok(_) => "ok\n".into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
    }
}

async fn metrics(State(shop): State<Arc<Shop>>) -> String {
    let query = shop.database.read("SELECT id FROM orders ORDER BY id DESC LIMIT 1", &[]);
    let state = timeout(Duration::from_secs(2), query).await.unwrap_or(Err(Error::Slow));
    exposition(&state.map(|_| ()))
}

/// The metrics in Prometheus' text format. An absent database says nothing about its tables.
fn exposition(orders: &Result<(), Error>) -> String {
    let (database, table) = match orders {
        Ok(()) => (1, Some(1)),
        Err(error) if error.is_damage() => (1, Some(0)),
        Err(Error::Refused(_)) => (1, None),
        Err(Error::Unreachable(_) | Error::Password(_) | Error::Ended(_) | Error::Slow) => (0, None),
    };
    let mut text = format!(
        "# HELP shop_database_ok Whether the database answers.\n# TYPE shop_database_ok gauge\nshop_database_ok {database}\n"
    );
    if let Some(table) = table {
        text.push_str("# HELP shop_orders_table_ok Whether the orders can be read.\n");
        text.push_str(&format!("# TYPE shop_orders_table_ok gauge\nshop_orders_table_ok {table}\n"));
    }
    text
}
