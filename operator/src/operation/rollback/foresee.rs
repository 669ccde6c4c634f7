//! What a rollback to a point of now would be, once services have got other images: whatever would stand in the way then is
//! told before. Pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::data::everything;
use super::decide::{Decision, Now, decide};
use crate::operation::point::users_of;
use crate::operation::points::{Data, Head, Member, Part, Purpose};
use crate::operation::record::OpId;
use crate::swarm::object::Service;
use crate::swarm::spec::{self, FileKind};

/// Foresees how services of a stack go back from these images, each named by its id, with the data of those. All services of
/// the Swarm are given.
pub fn foresee(services: &[Service], stack: &str, images: &[(&str, &str)], data: &[String]) -> Decision {
    let image = |s: &Service| images.iter().find(|(id, _)| *id == s.id).map(|(_, image)| *image);
    let mut swarm = services.to_vec();
    for service in &mut swarm {
        if let Some(image) = image(service) {
            spec::set_image(&mut service.spec, image);
        }
    }
    let is_member = |s: &&Service| image(s).is_some() || data.iter().any(|name| name == s.name());
    let members: Vec<&Service> = services.iter().filter(is_member).collect();
    let head = Head {
        schema: Head::VERSION,
        id: OpId::new(Timestamp::UNIX_EPOCH, stack),
        stack: stack.to_owned(),
        taken: Timestamp::UNIX_EPOCH,
        purpose: Purpose::Safety,
        services: members.iter().map(|s| member(s, data)).collect(),
        configs: Vec::new(),
        secrets: Vec::new(),
        networks: Vec::new(),
        volumes: Vec::new(),
    };
    let networks = members.iter().flat_map(|s| spec::networks(&s.spec));
    let secrets = members.iter().flat_map(|s| spec::object_refs(&s.spec, FileKind::Secret));
    let now = Now {
        services: users_of(&swarm, stack).into_iter().cloned().collect(),
        then: members.iter().map(|s| (s.name().to_owned(), s.spec.clone())).collect(),
        networks: networks.map(|network| (network.target.clone(), network.target)).collect(),
        secrets: secrets.map(|secret| (secret.id, secret.name)).collect(),
        configs: BTreeMap::new(),
        ready: BTreeSet::new(),
        swarm,
    };
    decide(&head, &now, &everything(&head))
}

fn member(service: &Service, data: &[String]) -> Member {
    let engine = service.spec["Labels"]["skep.data"].as_str().unwrap_or_default().to_owned();
    let keeps = data.iter().any(|name| name == service.name());
    Member {
        name: service.name().to_owned(),
        id: service.id.clone(),
        spec: Part { name: String::new(), sha256: String::new() },
        image: spec::image(&service.spec).to_owned(),
        nodes: Vec::new(),
        data: keeps.then(|| Data { engine, backup: String::new() }),
    }
}
