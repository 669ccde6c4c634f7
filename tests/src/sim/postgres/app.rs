//! What stands on the data: an application, and the page that stands in for it.

use std::time::Duration;

use super::Data;
use super::server::Session;
use crate::sim::users::Answer;
use crate::sim::workload::{Container, Run, Serve, View, Workload};

/// An application that answers from one database: it connects when it starts, again whenever its session was ended,
/// and fails its health check as long as it cannot.
#[derive(Clone)]
pub struct Application {
    /// The data.
    pub data: Data,
    /// Host name of the database server.
    pub host: String,
    /// Its database.
    pub database: String,
    /// Its role.
    pub user: String,
}

/// A release of the application that takes a table away as it starts, and is never healthy.
pub struct Spoils(pub Application);

/// nginx with the maintenance page.
pub struct PageServer;

// === impl Application ===

impl Application {
    /// What the application finds in its database now; connects where it has to.
    fn look(&self, container: &Container, view: &View<'_>) -> Result<String, String> {
        let servers = view.resolve(container, &self.host);
        let server = servers.first().ok_or_else(|| format!("{} does not resolve", self.host))?;
        let mut world = self.data.lock();
        if let Some(files) = world.files.get(&server.service) {
            let (found, half) = (files.fingerprint(), files.half);
            if half {
                let text = format!("{} saw half-moved files", container.service);
                world.violations.push(text.clone());
                return Ok(format!("half: {text}"));
            }
            return Ok(found);
        }
        let server = world.servers.get_mut(&server.service).ok_or("no server there")?;
        server.forget_dead(view);
        let name = &self.database;
        let session = server.sessions.get(&container.task).map(|s| s.database);
        // A session goes on in its database, whatever that is called by now.
        let by_session = server.databases.values().find(|d| Some(d.oid) == session);
        let database = match by_session {
            Some(database) => database,
            None => {
                let found = server.databases.get(name);
                let found = found.ok_or_else(|| format!("database \"{name}\" does not exist"))?;
                if !found.allow {
                    return Err(format!("database \"{name}\" is not currently accepting connections"));
                }
                found
            }
        };
        let (oid, whole, found) = (database.oid, database.whole, database.fingerprint());
        let session = Session {
            database: oid,
            application: "app".to_owned(),
            address: container.addresses().first().map(|a| (*a).to_owned()).unwrap_or_default(),
            user: self.user.clone(),
        };
        server.sessions.insert(container.task.clone(), session);
        if !whole {
            let text = format!("{} saw a half-restored database", container.service);
            world.violations.push(text.clone());
            return Ok(format!("half: {text}"));
        }
        Ok(found)
    }
}

impl Workload for Application {
    fn start(&self, container: &Container, view: &View<'_>) -> Run {
        self.data.lock().begins(&container.service);
        let _ = self.look(container, view);
        Run::Serve(Serve { exits: None, stop: Duration::from_millis(500) })
    }

    fn healthy(&self, container: &Container, view: &View<'_>) -> bool {
        self.look(container, view).is_ok_and(|found| !found.starts_with("half: "))
    }

    fn answer(&self, container: &Container, view: &View<'_>) -> Answer {
        match self.look(container, view) {
            Ok(found) => match found.strip_prefix("half: ") {
                Some(text) => Answer::Wrong(text.to_owned()),
                None => Answer::App(found),
            },
            Err(why) => Answer::Error(why),
        }
    }
}

// === impl Spoils ===

impl Workload for Spoils {
    fn start(&self, container: &Container, view: &View<'_>) -> Run {
        let run = self.0.start(container, view);
        if self.0.look(container, view).is_ok() {
            let mut world = self.0.data.lock();
            let server = world.servers.get_mut("shop_db");
            if let Some(database) = server.and_then(|server| server.databases.get_mut(&self.0.database)) {
                database.content.remove("users");
            }
        }
        run
    }

    fn healthy(&self, _container: &Container, _view: &View<'_>) -> bool {
        false
    }

    fn answer(&self, container: &Container, view: &View<'_>) -> Answer {
        self.0.answer(container, view)
    }
}

// === impl PageServer ===

impl Workload for PageServer {
    fn start(&self, _container: &Container, _view: &View<'_>) -> Run {
        Run::Serve(Serve { exits: None, stop: Duration::from_millis(50) })
    }

    fn answer(&self, _container: &Container, _view: &View<'_>) -> Answer {
        Answer::Page
    }
}
