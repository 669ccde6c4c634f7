//! Gives everything back: ends what runs, takes pages down, wakes what sleeps, puts exact specs back. The first step of the uninstall.
//!
//! ```text
//! cancel all that is open ─▶ drive what nobody drives ─▶ (stuck, where asked for: put saved specs back)
//!     ─▶ wake what sleeps ─▶ end all receivers, drop their replication slots ─▶ remove doors ─▶ report
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, sleep};

use super::drive::{self, Driver};
use super::failure::{Exit, Failure};
use super::follow::view;
use super::progress::state_tone;
use super::session::Session;
use super::settings::WorkArgs;
use super::sweep::still_paged;
use super::table::{Cell, Table};
use crate::operation::clients::{self, Start};
use crate::operation::desk::{self, Refusal};
use crate::operation::door;
use crate::operation::frozen;
use crate::operation::receiver::{self, Left};
use crate::operation::record::{Intent, OpId, Operation, SCHEMA, State, Trigger, Work};
use crate::operation::saga::{Cx, Env, Fault};
use crate::operation::sleeper::{self, Slept};
use crate::swarm::error::Error;

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A slot that was not dropped after this long is told.
const DROPPED_WITHIN: Duration = Duration::from_secs(120);

/// `release`
#[derive(Clone, Debug, clap::Args)]
pub struct ReleaseArgs {
    /// Every service; needed, so that nobody releases by mistake.
    #[arg(long, required = true)]
    pub all: bool,
    /// Also what is stuck: the services get their own specs back, on whatever data there is now.
    #[arg(long)]
    pub stuck: bool,
    /// Settings for driving what no operator drives.
    #[command(flatten)]
    pub work: WorkArgs,
}

/// `skep release --all`
pub(super) async fn release(session: &Session, args: &ReleaseArgs) -> Result<Exit, Failure> {
    let open: Vec<Operation> =
        desk::list(&session.engine).await?.into_iter().filter(|o| !o.journal.state.is_terminal()).collect();
    let (stuck, live): (Vec<_>, Vec<_>) = open.into_iter().partition(|o| o.journal.state == State::Stuck);
    for op in &live {
        match desk::cancel(&session.engine, &op.id, &session.who).await {
            // It ended or got stuck at this moment.
            Ok(_) | Err(Refusal::State { .. }) => {}
            Err(other) => return Err(other.into()),
        }
    }
    let ids: Vec<OpId> = live.iter().chain(&stuck).map(|o| o.id.clone()).collect();
    if !ids.is_empty() {
        let driver = Driver::start(session, &args.work, &ids)?;
        let rested = rest(session, &ids).await;
        let given_back = match (rested, args.stuck) {
            (Ok(()), true) => give_back(session, &args.work, &ids).await,
            (rested, _) => rested,
        };
        driver.stop().await;
        given_back?;
    }
    let woken = wake(session, &args.work).await?;
    let ids: Vec<OpId> = ids.into_iter().chain(woken).collect();
    let left = end_receivers(session).await?;
    // What sleeps would have nobody to wake it.
    let asleep = sleeper::list(&session.engine).await?;
    let doors = if asleep.is_empty() { door::retire(&session.engine).await? } else { Vec::new() };
    report(session, &ids, &left, &doors).await
}

/// Ends all receivers and drops their slots: a slot that nobody reads from would fill the live disk. What is left after a
/// while cannot be dropped now, and is told.
async fn end_receivers(session: &Session) -> Result<Vec<Left>, Failure> {
    receiver::release(&session.engine).await?;
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let until = session.now() + DROPPED_WITHIN;
    let mut told = Vec::new();
    loop {
        ticks.tick().await;
        let left = match receiver::retire(&session.engine, session.now()).await {
            Ok(left) => left,
            // Read again: a leader does the same.
            Err(error) if error.is_retryable() || matches!(error, Error::Stale { .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        for Left { service, slot } in left.iter().filter(|left| !told.contains(*left)) {
            session.out.aside(format!("{service}: ending its receiver, dropping replication slot {slot}"));
        }
        told.extend(left.iter().filter(|left| !told.contains(*left)).cloned().collect::<Vec<_>>());
        if left.is_empty() || session.now() >= until {
            return Ok(left);
        }
    }
}

/// Wakes everything that sleeps; what another one needs, with that one. Returns the operations that did.
async fn wake(session: &Session, work: &WorkArgs) -> Result<Vec<OpId>, Failure> {
    let mut ids = Vec::new();
    for Slept { sleeper, .. } in sleeper::list(&session.engine).await? {
        let intent = Intent {
            schema: SCHEMA,
            service: sleeper.service,
            service_id: sleeper.service_id,
            work: Work::Wake,
            trigger: Trigger::Person { name: session.who.clone() },
            created: session.now(),
            approval: false,
            accept_problems: true,
        };
        let id = OpId::new(session.now(), &format!("{:032x}", rand::random::<u128>()));
        desk::create(&session.engine, &id, intent).await?;
        ids.push(id);
    }
    if !ids.is_empty() {
        let driver = Driver::start(session, work, &ids)?;
        let rested = rest(session, &ids).await;
        driver.stop().await;
        rested?;
    }
    Ok(ids)
}

/// Waits until every operation has come to rest.
async fn rest(session: &Session, ids: &[OpId]) -> Result<(), Failure> {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut states: BTreeMap<OpId, State> = BTreeMap::new();
    loop {
        ticks.tick().await;
        let operations = match desk::list(&session.engine).await {
            Ok(operations) => operations,
            Err(error) if error.is_retryable() => continue,
            Err(error) => return Err(error.into()),
        };
        let own: Vec<&Operation> = operations.iter().filter(|o| ids.contains(&o.id)).collect();
        for op in &own {
            if states.insert(op.id.clone(), op.journal.state) != Some(op.journal.state) {
                session.out.aside(format!("{} {} is {}", op.title(), op.id, op.journal.state.as_str()));
            }
        }
        if own.iter().all(|o| o.journal.state.is_terminal() || o.journal.state == State::Stuck) {
            return Ok(());
        }
    }
}

/// Puts the saved specs of stuck operations back. Nobody else moves these; their records stay stuck, because what
/// became of the data is for a person to judge.
async fn give_back(session: &Session, work: &WorkArgs, ids: &[OpId]) -> Result<(), Failure> {
    let env = drive::env(session, work)?;
    let operations = desk::list(&session.engine).await?;
    let stuck = operations.into_iter().filter(|o| ids.contains(&o.id) && o.journal.state == State::Stuck);
    for mut op in stuck {
        session.out.aside(format!("{} {}: putting specs back", op.title(), op.id));
        if let Err(why) = put_back(&env, &mut op).await {
            session.out.aside(format!("{} {}: {why}", op.title(), op.id));
        }
    }
    Ok(())
}

async fn put_back(env: &Env, op: &mut Operation) -> Result<(), String> {
    let mut cx = Cx { env, op, step: clients::STEP };
    let frozen = frozen::load(&cx).await.map_err(|e| format!("its plan cannot be read: {e}"))?;
    loop {
        match clients::start(&mut cx, &frozen.clients, Start::BestEffort).await {
            Ok(None) => return Ok(()),
            Ok(Some(wait)) => sleep(wait.again).await,
            Err(Fault::Swarm(error)) if error.is_retryable() => {
                sleep(LOOK_EVERY).await;
                *cx.op = desk::find(&env.engine, &cx.op.id).await.map_err(|e| e.to_string())?;
            }
            Err(fault) => return Err(fault.to_string()),
        }
    }
}

async fn report(session: &Session, ids: &[OpId], left: &[Left], doors: &[String]) -> Result<Exit, Failure> {
    let operations = desk::list(&session.engine).await?;
    let own: Vec<&Operation> = operations.iter().filter(|o| ids.contains(&o.id)).collect();
    let services = session.engine.services(&[]).await?;
    let paged = still_paged(&services);
    if session.out.is_json() {
        let paged: Vec<&str> = paged.iter().map(|(s, _)| s.name()).collect();
        let operations: Vec<_> = own.iter().map(|o| view(o)).collect();
        session.out.json_whole(&serde_json::json!({
            "operations": operations, "still_paged": paged, "slots_left": left, "doors_removed": doors,
        }));
    } else if own.is_empty() && paged.is_empty() && left.is_empty() && doors.is_empty() {
        session.out.say("nothing to give back: no operation is open, no page is on, nothing sleeps");
    } else {
        let mut table = Table::new(&["OPERATION", "OF", "STATE"]);
        for op in &own {
            let state = Cell::new(state_tone(op.journal.state), op.journal.state.as_str());
            table.row(vec![op.id.as_str().into(), op.title().into(), state]);
        }
        session.out.say(table.render(session.out.paint));
    }
    for (service, op) in &paged {
        session.out.aside(format!("mind: {} still shows the page of operation {op}", service.name()));
    }
    for service in doors {
        session.out.aside(format!(
            "mind: the door of {service} was removed: a proxy that asks it has to ask the service itself"
        ));
    }
    for Left { service, slot } in left {
        session.out.aside(format!(
            "mind: replication slot {slot} of {service} could not be dropped yet; it makes the server keep its log. Run this again \
             once the server answers, or in its database: SELECT pg_drop_replication_slot('{slot}')"
        ));
    }
    let stuck = own.iter().any(|o| o.journal.state == State::Stuck);
    Ok(if stuck || !paged.is_empty() || !left.is_empty() { Exit::Stuck } else { Exit::Fine })
}
