//! Asking for operations: backup, restore, drill, maintenance; and the plan of each.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::drive::DriveArgs;
use super::failure::{Exit, Failure};
use super::follow::{Until, follow, view};
use super::points::PointWhat;
use super::restart::RestartWhat;
use super::rollback::RollbackWhat;
use super::scale::PlanScale;
use super::session::Session;
use super::settings::positive;
use super::update::{self, UpdateWhat};
use crate::operation::desk;
use crate::operation::record::{Intent, OpId, SCHEMA, Trigger, Work, of_stack};
use crate::plan::{Plan, World, explain, moment};
use crate::policy::{self, Schedule, Strategy, duration};
use crate::swarm::object::Service;

/// Options of everything that asks for an operation.
#[derive(Clone, Debug, clap::Args)]
pub struct AskArgs {
    /// Only say what would be done, as `plan` does.
    #[arg(long)]
    pub dry_run: bool,
    /// Ask for it and do not wait.
    #[arg(short, long, conflicts_with = "drive")]
    pub detach: bool,
    /// Who drives it.
    #[command(flatten)]
    pub drive: DriveArgs,
}

/// `backup`
#[derive(Clone, Debug, clap::Args)]
pub struct BackupArgs {
    /// The service with the data, `stack_service`.
    pub service: String,
    /// How it is asked for.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// `restore`
#[derive(Clone, Debug, clap::Args)]
pub struct RestoreArgs {
    /// What to restore.
    #[command(flatten)]
    pub what: RestoreWhat,
    /// How it is asked for.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// What to restore, and how.
#[derive(Clone, Debug, clap::Args)]
pub struct RestoreWhat {
    /// The service with the data, `stack_service`.
    pub service: String,
    /// This backup and no other; `backups` lists them.
    #[arg(long, value_name = "ID", conflicts_with = "before")]
    pub backup: Option<String>,
    /// The newest verified backup older than this: `2026-03-01T02:00:00Z`, `2026-03-01 02:00` or `2h` (ago).
    #[arg(long, value_name = "TIME")]
    pub before: Option<String>,
    /// The data as it was at this moment: `2026-05-01 14:03:00` by the clock of the service's schedule (else UTC), or with its
    /// zone, as in `2026-05-01T14:03:00Z` or `2026-05-01 14:03:00 Europe/Paris`. Needs skep.backup.wal=true.
    #[arg(long, value_name = "TIME", conflicts_with_all = ["backup", "before", "in_place", "create_roles"])]
    pub to: Option<String>,
    /// Replace the data in place instead of beside.
    #[arg(long)]
    pub in_place: bool,
    /// Cut over under running clients.
    #[arg(long)]
    pub no_quiesce: bool,
    /// Make roles that the backup holds and the server lacks (PostgreSQL, beside only); none that exists is changed.
    #[arg(long, conflicts_with = "in_place")]
    pub create_roles: bool,
    /// Go on although labels have problems that stand against it.
    #[arg(long)]
    pub accept_problems: bool,
}

/// `drill`
#[derive(Clone, Debug, clap::Args)]
pub struct DrillArgs {
    /// What to prove.
    #[command(flatten)]
    pub what: DrillWhat,
    /// How it is asked for.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// Which backup to prove.
#[derive(Clone, Debug, clap::Args)]
pub struct DrillWhat {
    /// The service with the data, `stack_service`.
    pub service: String,
    /// This backup and no other; `backups` lists them.
    #[arg(long, value_name = "ID")]
    pub backup: Option<String>,
}

/// `maintenance`
#[derive(Clone, Debug, clap::Subcommand)]
pub enum MaintenanceCommand {
    /// Put the maintenance page up.
    On(MaintenanceOn),
    /// Take it down.
    Off(MaintenanceOff),
}

/// `maintenance on`
#[derive(Clone, Debug, clap::Args)]
pub struct MaintenanceOn {
    /// The service, `stack_service`.
    pub service: String,
    /// Take it down again after this, as in `2h` or `30m`.
    #[arg(long = "for", value_name = "DURATION", value_parser = positive)]
    pub lasts: Option<Duration>,
    /// Go on although labels have problems that stand against it.
    #[arg(long)]
    pub accept_problems: bool,
    /// How it is asked for.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// `maintenance off`
#[derive(Clone, Debug, clap::Args)]
pub struct MaintenanceOff {
    /// The service, `stack_service`.
    pub service: String,
    /// Do not wait until it is down.
    #[arg(short, long, conflicts_with = "drive")]
    pub detach: bool,
    /// Who drives it.
    #[command(flatten)]
    pub drive: DriveArgs,
}

/// `plan`
#[derive(Clone, Debug, clap::Subcommand)]
pub enum PlanCommand {
    /// What a backup would do.
    Backup {
        /// The service with the data.
        service: String,
    },
    /// What taking a restore point would do.
    Point(PointWhat),
    /// What a restore would do.
    Restore(RestoreWhat),
    /// What restarting a service or a stack would do.
    Restart(RestartWhat),
    /// What giving a service another image would do, or several theirs.
    Update(UpdateWhat),
    /// What putting a stack back to a restore point would do.
    Rollback(RollbackWhat),
    /// What a drill would do.
    Drill(DrillWhat),
    /// What putting a service to sleep would do, or waking it.
    #[command(subcommand)]
    Scale(PlanScale),
    /// What putting the maintenance page up would do.
    Maintenance {
        /// The service.
        service: String,
        /// Take it down again after this.
        #[arg(long = "for", value_name = "DURATION", value_parser = positive)]
        lasts: Option<Duration>,
    },
}

/// What is asked for.
pub(super) struct Wish {
    service: String,
    work: Work,
    /// The moment to which data is to come back, as it was written.
    to: Option<String>,
    accept_problems: bool,
    until: Until,
}

/// What a wish comes to.
struct Planned {
    /// Full name of the service, or name of the stack.
    service: String,
    service_id: String,
    work: Work,
    plan: Plan,
}

/// `skep backup`
pub(super) async fn backup(session: &Session, args: &BackupArgs) -> Result<Exit, Failure> {
    ask(session, Wish::new(&args.service, Work::Backup), &args.ask).await
}

/// `skep restore`
pub(super) async fn restore(session: &Session, args: &RestoreArgs) -> Result<Exit, Failure> {
    ask(session, args.what.wish(session)?, &args.ask).await
}

/// `skep drill`
pub(super) async fn drill(session: &Session, args: &DrillArgs) -> Result<Exit, Failure> {
    ask(session, args.what.wish(), &args.ask).await
}

/// `skep maintenance`
pub(super) async fn maintenance(session: &Session, command: &MaintenanceCommand) -> Result<Exit, Failure> {
    match command {
        MaintenanceCommand::On(args) => {
            let mut wish = maintenance_wish(session, &args.service, args.lasts);
            wish.accept_problems = args.accept_problems;
            // Whoever drives it has to stay.
            wish.until = if args.ask.drive.drive { Until::Rest } else { Until::Begun("hold") };
            ask(session, wish, &args.ask).await
        }
        MaintenanceCommand::Off(args) => off(session, args).await,
    }
}

/// `skep plan`
pub(super) async fn plan(session: &Session, command: &PlanCommand) -> Result<Exit, Failure> {
    let wish = match command {
        PlanCommand::Backup { service } => Wish::new(service, Work::Backup),
        PlanCommand::Point(what) => what.wish(),
        PlanCommand::Restore(what) => what.wish(session)?,
        PlanCommand::Restart(what) => what.wish(),
        PlanCommand::Update(what) => what.wish()?,
        PlanCommand::Rollback(what) => what.wish(session).await?,
        PlanCommand::Drill(what) => what.wish(),
        PlanCommand::Scale(command) => command.wish(),
        PlanCommand::Maintenance { service, lasts } => maintenance_wish(session, service, *lasts),
    };
    let world = session.world_for(&wish.work).await?;
    Ok(show(session, &planned(session, &world, &wish)?.plan))
}

async fn off(session: &Session, args: &MaintenanceOff) -> Result<Exit, Failure> {
    let world = session.world().await?;
    let service = session.meant(&world, &args.service)?.name();
    let open = world.operations.iter().find(|op| {
        op.intent.service == service
            && matches!(op.intent.work, Work::Maintenance { .. })
            && !op.journal.state.is_terminal()
    });
    let open = open.ok_or_else(|| {
        Failure::refused_but(
            format!("{service} is not in maintenance"),
            format!("`{} ps` shows what every service is doing", session.command),
        )
    })?;
    desk::cancel(&session.engine, &open.id, &session.who).await?;
    let driver = args.drive.start(session, std::slice::from_ref(&open.id))?;
    if args.detach {
        return announce(session, &open.id).await;
    }
    follow(session, &open.id, Until::Rest, driver).await
}

/// Asks for an operation and follows it.
pub(super) async fn ask(session: &Session, wish: Wish, args: &AskArgs) -> Result<Exit, Failure> {
    Ok(asked(session, wish, args).await?.1)
}

/// As [`ask`], also telling which operation it was; none for a dry run.
pub(super) async fn asked(
    session: &Session,
    wish: Wish,
    args: &AskArgs,
) -> Result<(Option<OpId>, Exit), Failure> {
    let world = session.world_for(&wish.work).await?;
    let Planned { service, service_id, work, plan } = planned(session, &world, &wish)?;
    if args.dry_run {
        return Ok((None, show(session, &plan)));
    }
    if !plan.is_fine() {
        let hint = format!("`{} plan` shows the whole plan", session.command);
        return Err(Failure::refused_but(plan.refused.join("\n      "), hint));
    }
    if !session.out.is_json() {
        plan.mind.iter().for_each(|m| session.out.aside(format!("mind: {m}")));
    }
    let now = session.now();
    let intent = Intent {
        schema: SCHEMA,
        service,
        service_id,
        work,
        trigger: Trigger::Person { name: session.who.clone() },
        created: now,
        approval: false,
        accept_problems: wish.accept_problems,
    };
    let id = OpId::new(now, &format!("{:032x}", rand::random::<u128>()));
    // Settings that cannot work are found before anything is asked for.
    let driver = args.drive.start(session, std::slice::from_ref(&id))?;
    desk::create(&session.engine, &id, intent).await?;
    let exit = match args.detach {
        true => announce(session, &id).await?,
        false => follow(session, &id, wish.until, driver).await?,
    };
    Ok((Some(id), exit))
}

async fn announce(session: &Session, id: &OpId) -> Result<Exit, Failure> {
    let op = desk::find(&session.engine, id).await?;
    if session.out.is_json() {
        session.out.json_whole(&view(&op));
    } else {
        session.out.say(format!("{id}"));
        session.out.aside(format!("`{} ops show --follow {id}` follows it", session.command));
    }
    Ok(Exit::Fine)
}

/// What the labels make of a wish.
fn planned(session: &Session, world: &World, wish: &Wish) -> Result<Planned, Failure> {
    let mut work = wish.work.clone();
    if let Work::Restart { whole, .. } = &mut work {
        *whole = world.service(&wish.service).is_none() && world.stacks().contains(wish.service.as_str());
    }
    if work.is_of_stack() {
        let stack = session.meant_stack(world, &wish.service)?;
        let plan = explain(world, stack, &work, wish.accept_problems, session.now());
        let (service, service_id) = (stack.to_owned(), of_stack(stack));
        return Ok(Planned { service, service_id, work, plan });
    }
    let service = update::meant(session, world, &wish.service, &mut work)?;
    if let Work::Restore { in_place: in_place @ None, .. } = &mut work {
        let restore = policy::parse(&service.labels()).policy.restore;
        // A moment is always restored beside.
        *in_place = restore.map(|r| r.strategy == Strategy::InPlace && wish.to.is_none());
    }
    if let (Work::Restore { to, .. }, Some(text)) = (&mut work, &wish.to) {
        *to = Some(moment_of(service, text)?);
    }
    let plan = explain(world, service.name(), &work, wish.accept_problems, session.now());
    Ok(Planned { service: service.name().to_owned(), service_id: service.id.clone(), work, plan })
}

/// A moment in the life of a service: by the clock of its schedule, where nothing else is said.
fn moment_of(service: &Service, text: &str) -> Result<Timestamp, Failure> {
    let backup = policy::parse(&service.labels()).policy.backup.unwrap_or_default();
    let zone = backup.schedules.first().map_or(TimeZone::UTC, Schedule::zone);
    moment::parse(text, &zone).map_err(|why| Failure::refused(format!("--to: {why}")))
}

fn show(session: &Session, plan: &Plan) -> Exit {
    if session.out.is_json() {
        session.out.json_whole(plan);
    } else {
        session.out.write(&plan.to_string());
    }
    if plan.is_fine() { Exit::Fine } else { Exit::Refused }
}

fn maintenance_wish(session: &Session, service: &str, lasts: Option<Duration>) -> Wish {
    Wish::new(service, Work::Maintenance { until: lasts.map(|lasts| session.now() + lasts) })
}

// === impl Wish ===

impl Wish {
    pub(super) fn new(service: &str, work: Work) -> Wish {
        Wish { service: service.to_owned(), work, to: None, accept_problems: false, until: Until::Rest }
    }
}

// === impl RestoreWhat ===

impl RestoreWhat {
    fn wish(&self, session: &Session) -> Result<Wish, Failure> {
        let before = self.before.as_deref().map(|text| {
            time(text, session.now(), session.out.zone()).ok_or_else(|| {
                let want = "want `2026-03-01T02:00:00Z`, `2026-03-01 02:00` or how long ago, as in `2h`";
                Failure::refused(format!("--before: `{text}` is no time: {want}"))
            })
        });
        let work = Work::Restore {
            to: None,
            backup: self.backup.clone(),
            before: before.transpose()?,
            in_place: self.in_place.then_some(true),
            quiesce: self.no_quiesce.then_some(false),
            create_roles: self.create_roles,
        };
        let to = self.to.clone();
        Ok(Wish { to, accept_problems: self.accept_problems, ..Wish::new(&self.service, work) })
    }
}

// === impl DrillWhat ===

impl DrillWhat {
    fn wish(&self) -> Wish {
        Wish::new(&self.service, Work::Drill { backup: self.backup.clone() })
    }
}

/// A time as people write it: with its offset, without one in their own zone, or how long ago.
fn time(text: &str, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let local = || text.parse::<DateTime>().ok()?.to_zoned(zone.clone()).ok().map(|z| z.timestamp());
    let ago = || duration::parse(text).ok().map(|ago| now - ago);
    text.parse::<Timestamp>().ok().or_else(local).or_else(ago)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        let now: Timestamp = "2026-03-02T12:00:00Z".parse().unwrap();
        let paris = TimeZone::get("Europe/Paris").unwrap();
        for (text, meant) in [
            ("2026-03-01T02:00:00Z", Some("2026-03-01T02:00:00Z")),
            ("2026-03-01T02:00:00+02:00", Some("2026-03-01T00:00:00Z")),
            ("2026-03-01 02:00", Some("2026-03-01T01:00:00Z")),
            ("2026-03-01", Some("2026-02-28T23:00:00Z")),
            ("2h", Some("2026-03-02T10:00:00Z")),
            ("1d12h", Some("2026-03-01T00:00:00Z")),
            ("yesterday", None),
            ("", None),
        ] {
            let meant = meant.map(|m| m.parse::<Timestamp>().unwrap());
            assert_eq!(time(text, now, &paris), meant, "{text}");
        }
    }
}
