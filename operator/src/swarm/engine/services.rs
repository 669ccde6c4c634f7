//! Services and their tasks.

use hyper::header::HeaderValue;
use serde_json::{Value, json};

use super::{Engine, exact, filters, list, understood};
use crate::swarm::decode;
use crate::swarm::error::Error;
use crate::swarm::object::{OwnTask, RegistryAuth, Service, Task};
use crate::swarm::transport::{Call, encode};

/// Task lists are asked for so many services at once: the filter travels in the request line.
const SERVICES_A_LIST: usize = 100;

// === impl Engine ===

impl Engine {
    /// One service by id or exact name.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none.
    pub async fn service(&self, id_or_name: &str) -> Result<Service, Error> {
        let what = format!("reading service `{id_or_name}`");
        let mut value = self.read(&what, Call::get(format!("/services/{}", encode(id_or_name)))).await?;
        let service = understood(&what, decode::service(&mut value))?;
        exact(&what, id_or_name, &service.id, service.name())?;
        Ok(service)
    }

    /// All services that carry the labels; a label without a value only has to be there.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    pub async fn services(&self, labels: &[(&str, Option<&str>)]) -> Result<Vec<Service>, Error> {
        let wanted: Vec<String> =
            labels.iter().map(|(k, v)| v.map_or_else(|| (*k).to_owned(), |v| format!("{k}={v}"))).collect();
        let path = match wanted.is_empty() {
            true => "/services".to_owned(),
            false => format!("/services?{}", filters(&json!({"label": wanted}))),
        };
        let what = "listing services";
        let value = self.read(what, Call::get(path)).await?;
        understood(what, list(value)?.iter_mut().map(decode::service).collect())
    }

    /// Creates a service and answers its id.
    ///
    /// # Errors
    /// [`Error::Exists`] when there is one of that name.
    pub async fn create_service(&self, spec: &Value, auth: RegistryAuth) -> Result<String, Error> {
        let what = format!("creating service `{}`", spec["Name"].as_str().unwrap_or_default());
        let mut call = Call::post("/services/create".to_owned(), spec);
        if let RegistryAuth::Header(value) = auth {
            let value = HeaderValue::from_str(&value).map_err(|_| Error::Refused {
                what: what.clone(),
                message: "the registry credentials cannot be a header".to_owned(),
            })?;
            call.registry_auth = Some(value);
        }
        self.create(&what, call).await
    }

    /// Replaces the spec of a service, if it still has that version. Stored registry credentials stay.
    ///
    /// # Errors
    /// [`Error::Stale`] when it changed since.
    pub async fn update_service(&self, id: &str, version: u64, spec: &Value) -> Result<(), Error> {
        let path = format!("/services/{}/update?version={version}&registryAuthFrom=spec", encode(id));
        let what = format!("updating service `{}`", spec["Name"].as_str().unwrap_or_default());
        self.write(&what, Call::post(path, spec)).await.map(drop)
    }

    /// Removes a service by id; one that is gone is success. Its tasks end later.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    pub async fn remove_service(&self, id: &str) -> Result<(), Error> {
        self.remove(&format!("removing service {id}"), format!("/services/{}", encode(id))).await
    }

    /// The tasks of the services, those that have ended included. A removed service has none.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    pub async fn tasks(&self, service_ids: &[&str]) -> Result<Vec<Task>, Error> {
        let mut tasks = Vec::new();
        for some in service_ids.chunks(SERVICES_A_LIST) {
            match self.tasks_at_once(some).await {
                Ok(found) => tasks.extend(found),
                // The engine refuses the whole list when one service is gone.
                Err(Error::NotFound { .. }) => {
                    for one in some {
                        match self.tasks_at_once(&[one]).await {
                            Ok(found) => tasks.extend(found),
                            Err(Error::NotFound { .. }) => {}
                            Err(error) => return Err(error),
                        }
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(tasks)
    }

    /// All tasks. Those of removed services are listed until they have ended and are cleaned up.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    pub async fn all_tasks(&self) -> Result<Vec<Task>, Error> {
        self.list_tasks("/tasks".to_owned()).await
    }

    /// The tasks of services that carried the labels when the task was made. Those of removed services are listed
    /// until they have ended and are cleaned up.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    pub async fn tasks_labelled(&self, labels: &[(&str, &str)]) -> Result<Vec<Task>, Error> {
        let wanted: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        self.list_tasks(format!("/tasks?{}", filters(&json!({"label": wanted})))).await
    }

    /// The task whose container's id begins with this, as containers are named for themselves.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    pub async fn task_of_container(&self, id: &str) -> Result<Option<OwnTask>, Error> {
        // A name that is shorter, or no hexadecimal number, was given by a person.
        if id.len() < 12 || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(None);
        }
        let what = "looking for Skep's own task";
        let path = format!("/tasks?{}", filters(&json!({"desired-state": ["running"]})));
        let tasks = list(self.read(what, Call::get(path)).await?);
        let is_here = |task: &&Value| {
            let container = task["Status"]["ContainerStatus"]["ContainerID"].as_str();
            container.is_some_and(|c| c.starts_with(id))
        };
        let own = |task: &Value| {
            Some(OwnTask {
                image: task["Spec"]["ContainerSpec"]["Image"].as_str()?.to_owned(),
                service: task["ServiceID"].as_str()?.to_owned(),
            })
        };
        Ok(tasks?.iter().find(is_here).and_then(own))
    }

    async fn tasks_at_once(&self, service_ids: &[&str]) -> Result<Vec<Task>, Error> {
        self.list_tasks(format!("/tasks?{}", filters(&json!({"service": service_ids})))).await
    }

    async fn list_tasks(&self, path: String) -> Result<Vec<Task>, Error> {
        let what = "listing tasks";
        let value = self.read(what, Call::get(path)).await?;
        understood(what, list(value)?.iter_mut().map(decode::task).collect())
    }
}
