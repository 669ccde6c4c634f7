//! The dependency graph of the services (first cut; the operations rely on these four methods).
use super::Restore;
use crate::swarm::object::Service;
#[allow(missing_docs)]
pub struct Graph<'a> {
    services: &'a [Service],
}
#[allow(missing_docs)]
impl<'a> Graph<'a> {
    pub fn new(services: &'a [Service]) -> Graph<'a> {
        Graph { services }
    }
    pub fn resolve(&self, of: &str, name: &str) -> Option<String> {
        let stack = self.services.iter().find(|s| s.name() == of)?.stack().unwrap_or_default();
        let full = format!("{stack}_{name}");
        self.services.iter().map(Service::name).find(|n| *n == full || *n == name).map(str::to_owned)
    }
    pub fn dependencies_of(&self, name: &str) -> Vec<String> {
        let Some(s) = self.services.iter().find(|s| s.name() == name) else { return vec![] };
        super::parse(&s.labels()).policy.depends_on.iter().filter_map(|d| self.resolve(name, d)).collect()
    }
    pub fn clients(&self, of: &str, restore: &Restore) -> Result<Vec<String>, String> {
        if let Some(c) = &restore.clients {
            return Ok(c.iter().map(|n| self.resolve(of, n).unwrap_or_else(|| n.clone())).collect());
        }
        Ok(self
            .services
            .iter()
            .map(Service::name)
            .filter(|s| self.dependencies_of(s).iter().any(|d| d == of))
            .map(str::to_owned)
            .collect())
    }
}
