//! Putting a stack back to a restore point.

use super::failure::{Exit, Failure};
use super::operate::{AskArgs, Wish, ask};
use super::points::meant;
use super::session::Session;
use crate::operation::record::Work;
use crate::operation::rollback::{self, Component};

/// `rollback`
#[derive(Clone, Debug, clap::Args)]
pub struct RollbackArgs {
    /// What goes back.
    #[command(flatten)]
    pub what: RollbackWhat,
    /// How it is asked for.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// What goes back, and to which point.
#[derive(Clone, Debug, clap::Args)]
pub struct RollbackWhat {
    /// The stack.
    pub stack: String,
    /// The restore point, or an unambiguous beginning of its id; `points` lists them.
    #[arg(long, value_name = "POINT")]
    pub to: String,
    /// Only these components: specs, configs, images, database (db), cache, volumes; without it everything that the point
    /// holds, its data included.
    #[arg(long, value_name = "COMPONENT,…", value_delimiter = ',', value_parser = component)]
    pub only: Vec<Component>,
}

/// `skep rollback`
pub(super) async fn rollback(session: &Session, args: &RollbackArgs) -> Result<Exit, Failure> {
    ask(session, args.what.wish(session).await?, &args.ask).await
}

// === impl RollbackWhat ===

impl RollbackWhat {
    pub(super) async fn wish(&self, session: &Session) -> Result<Wish, Failure> {
        let head = meant(session, &self.to).await?;
        // What goes back is said in the intent, whatever the point holds by the time that it begins.
        let only = if self.only.is_empty() { rollback::everything(&head) } else { self.only.clone() };
        Ok(Wish::new(&self.stack, Work::Rollback { point: head.id, only }))
    }
}

fn component(text: &str) -> Result<Component, String> {
    let name = if text == "db" { "database" } else { text };
    Component::ALL.into_iter().find(|c| c.as_str() == name).ok_or_else(|| {
        let known: Vec<&str> = Component::ALL.into_iter().map(Component::as_str).collect();
        format!("want one of {}", known.join(", "))
    })
}
