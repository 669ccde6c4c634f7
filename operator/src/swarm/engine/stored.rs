//! Configs and secrets.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard::query_parameters::ListConfigsOptionsBuilder;
use serde_json::{Value, json};

use super::{Engine, exact, filters, in_time, list, understood};
use crate::swarm::decode;
use crate::swarm::error::Error;
use crate::swarm::object::{Config, KIND, Kind, Labels, Secret};
use crate::swarm::transport::{Call, encode};

// === impl Engine ===

impl Engine {
    /// Stores a config and answers its id.
    ///
    /// # Errors
    /// [`Error::Exists`] when there is one of that name.
    pub async fn create_config(&self, name: &str, labels: &Labels, data: &[u8]) -> Result<String, Error> {
        let body = json!({"Name": name, "Labels": labels, "Data": STANDARD.encode(data)});
        self.create(&format!("storing config `{name}`"), Call::post("/configs/create".to_owned(), &body))
            .await
    }

    /// Stores a config, unless there is one of that name already, and answers its id.
    ///
    /// # Errors
    /// When the engine cannot be asked or refuses it.
    pub async fn ensure_config(&self, name: &str, labels: &Labels, data: &[u8]) -> Result<String, Error> {
        match self.create_config(name, labels, data).await {
            Err(Error::Exists { .. }) => self.config_id(name).await,
            result => result,
        }
    }

    /// One config with its data, by id or by exact name.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none.
    pub async fn config(&self, id_or_name: &str) -> Result<Config, Error> {
        let what = format!("reading config `{id_or_name}`");
        let value = self.read(&what, Call::get(format!("/configs/{}", encode(id_or_name)))).await?;
        let config = understood(&what, decode::config(&value))?;
        exact(&what, id_or_name, &config.id, &config.name)?;
        Ok(config)
    }

    /// The id of a config by its exact name.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none.
    pub async fn config_id(&self, name: &str) -> Result<String, Error> {
        let what = format!("reading config `{name}`");
        let value = self.read(&what, Call::get(format!("/configs/{}", encode(name)))).await?;
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        exact(&what, name, "", &text(&value["Spec"]["Name"]))?;
        Ok(text(&value["ID"]))
    }

    /// A person's config by its exact name; none where it does not exist.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    pub async fn user_config(&self, name: &str) -> Result<Option<Config>, Error> {
        match self.config(name).await {
            Ok(config) => Ok((config.name == name).then_some(config)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All configs of a kind that carry the labels, with their data.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    pub async fn configs(&self, kind: Kind, labels: &[(&str, &str)]) -> Result<Vec<Config>, Error> {
        let what = format!("listing configs of kind {}", kind.as_str());
        let mut wanted = vec![format!("{KIND}={}", kind.as_str())];
        wanted.extend(labels.iter().map(|(k, v)| format!("{k}={v}")));
        if matches!(kind, Kind::Plan | Kind::Point | Kind::PointPart | Kind::Sleep) {
            // Bollard writes what it decodes into its debug log, and these hold whole specs (S15).
            let path = format!("/configs?{}", filters(&json!({"label": wanted})));
            let value = self.read(&what, Call::get(path)).await?;
            return understood(&what, list(value)?.iter().map(decode::config).collect());
        }
        let filters = HashMap::from([("label".to_owned(), wanted)]);
        let options = ListConfigsOptionsBuilder::default().filters(&filters).build();
        let configs = in_time(&what, self.docker.list_configs(Some(options))).await?;
        understood(&what, configs.into_iter().map(decode::listed_config).collect())
    }

    /// Replaces the labels of a config, if it still has that version. Its data stays.
    ///
    /// # Errors
    /// [`Error::Stale`] when it changed since.
    pub async fn relabel_config(
        &self,
        id: &str,
        version: u64,
        name: &str,
        labels: &Labels,
    ) -> Result<(), Error> {
        let body = json!({"Name": name, "Labels": labels});
        let path = format!("/configs/{}/update?version={version}", encode(id));
        self.write(&format!("updating config `{name}`"), Call::post(path, &body)).await.map(drop)
    }

    /// Removes a config by id; one that is gone is success.
    ///
    /// # Errors
    /// [`Error::Refused`] when a service uses it.
    pub async fn remove_config(&self, id: &str) -> Result<(), Error> {
        self.remove(&format!("removing config {id}"), format!("/configs/{}", encode(id))).await
    }

    /// Stores a secret and answers its id.
    ///
    /// # Errors
    /// [`Error::Exists`] when there is one of that name.
    pub async fn create_secret(&self, name: &str, labels: &Labels, data: &[u8]) -> Result<String, Error> {
        let body = json!({"Name": name, "Labels": labels, "Data": STANDARD.encode(data)});
        self.create(&format!("storing secret `{name}`"), Call::post("/secrets/create".to_owned(), &body))
            .await
    }

    /// Stores a secret, unless there is one of that name already, and answers its id.
    ///
    /// # Errors
    /// When the engine cannot be asked or refuses it.
    pub async fn ensure_secret(&self, name: &str, labels: &Labels, data: &[u8]) -> Result<String, Error> {
        match self.create_secret(name, labels, data).await {
            Err(Error::Exists { .. }) => self.secret_id(name).await,
            result => result,
        }
    }

    /// The id of a secret by its exact name.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none.
    pub async fn secret_id(&self, name: &str) -> Result<String, Error> {
        let what = format!("reading secret `{name}`");
        let value = self.read(&what, Call::get(format!("/secrets/{}", encode(name)))).await?;
        let secret = understood(&what, decode::secret(&value))?;
        exact(&what, name, &secret.name, &secret.name)?;
        Ok(secret.id)
    }

    /// All secrets that carry the labels, without their data.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    pub async fn secrets(&self, labels: &[(&str, &str)]) -> Result<Vec<Secret>, Error> {
        let wanted: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let path = format!("/secrets?{}", filters(&json!({"label": wanted})));
        let what = "listing secrets";
        let value = self.read(what, Call::get(path)).await?;
        understood(what, list(value)?.iter().map(decode::secret).collect())
    }

    /// Removes a secret by id; one that is gone is success.
    ///
    /// # Errors
    /// [`Error::Refused`] when a service uses it.
    pub async fn remove_secret(&self, id: &str) -> Result<(), Error> {
        self.remove(&format!("removing secret {id}"), format!("/secrets/{}", encode(id))).await
    }
}
