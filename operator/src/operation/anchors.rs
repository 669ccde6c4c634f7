//! By what a store is known again before anything is written to it: the backups that are registered in it.
//!
//! A mount that is lost leaves a directory of the local disk, and a wrong bucket is as good as any: what is written there is
//! read back and found whole, and is not where anybody looks for it. So a job that writes is told which backups the store
//! has, and refuses one that has none of them. Raft is what is believed; nothing has to be written into the store for it.
//!
//! Invariants: where nothing is registered, nothing is asked; a backup that is being removed vouches for nothing, one that was
//! found spoilt does (it was read there); who stands for a store that each node may have its own of was written from there.

use std::cmp::Reverse;

use skep_runner::task::Anchors;

use super::catalogue::Backup;
use super::frozen::Target;
use super::saga::{Cx, Fault};
use super::settings::{Settings, Store};
use crate::swarm::object::Kind;

/// So many are told at most, the newest first: one that is there is enough.
const MOST: usize = 32;

/// Which backups vouch for a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Vouch {
    /// All that it has.
    All,
    /// Those of the same service, and those that were written from the same node.
    OfServiceOrNode,
    /// Those that were written from the same node.
    OfNode,
}

/// What a job needs to know of the store to which it writes; none where nothing vouches for it.
///
/// # Errors
/// What the engine says.
pub async fn find(cx: &Cx<'_>, target: &Target, store: &str) -> Result<Option<Anchors>, Fault> {
    if vouch(&cx.env.settings, store).is_none() {
        return Ok(None);
    }
    let configs = cx.engine().configs(Kind::Backup, &[]).await?;
    let backups: Vec<Backup> = configs.iter().filter_map(Backup::read).collect();
    let dirs = dirs(&cx.env.settings, &backups, target, store);
    Ok((!dirs.is_empty()).then(|| Anchors { store: store.to_owned(), dirs }))
}

/// Directories of the backups that vouch for a store, the newest first; pure.
fn dirs(settings: &Settings, backups: &[Backup], target: &Target, store: &str) -> Vec<String> {
    let Some(vouch) = vouch(settings, store) else { return Vec::new() };
    let is_there = |b: &&Backup| b.entry.store == store || b.copies.iter().any(|copy| copy == store);
    let counts = |b: &&Backup| {
        let of_node = b.entry.node.is_some() && b.entry.node == target.node;
        match vouch {
            Vouch::All => true,
            Vouch::OfServiceOrNode => of_node || b.entry.service == target.name,
            Vouch::OfNode => of_node,
        }
    };
    let mut found: Vec<&Backup> =
        backups.iter().filter(|b| b.removing.is_none()).filter(is_there).filter(counts).collect();
    found.sort_by_key(|b| Reverse(b.entry.taken));
    found.into_iter().take(MOST).map(|b| b.entry.dir.clone()).collect()
}

/// None: a volume of the engine's own, which is a directory of its own and no mount. Where that is lost, so is what it held,
/// and the next backup is the more needed.
fn vouch(settings: &Settings, store: &str) -> Option<Vouch> {
    match settings.stores.get(store)? {
        Store::S3(_) => Some(Vouch::All),
        Store::Bind(_) => Some(Vouch::OfServiceOrNode),
        store @ Store::Volume { .. } if !store.is_of_each_node() => Some(Vouch::All),
        Store::Volume { options, .. } => options.contains_key("device").then_some(Vouch::OfNode),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::operation::catalogue::Purpose;
    use crate::operation::catalogue::testing::backup;

    fn settings() -> Settings {
        let mut settings = Settings::default();
        for (name, store) in [
            ("dir", "bind:/mnt/nas"),
            ("nfs", "volume:nas,opt.type=nfs,opt.device=:/nas"),
            ("bound", "volume:nas,opt.type=none,opt.o=bind,opt.device=/mnt/nas"),
            ("cloud", "s3://bucket"),
        ] {
            settings.stores.insert(name.to_owned(), store.parse().unwrap());
        }
        settings
    }

    fn stored(id: &str, day: u32, store: &str, service: &str, node: &str) -> Backup {
        let mut made = backup(id, &format!("2026-01-{day:02}T00:00:00Z"), Purpose::Regular, true);
        made.entry.dir = id.to_owned();
        made.entry.store = store.to_owned();
        made.entry.service = service.to_owned();
        made.entry.node = (!node.is_empty()).then(|| node.to_owned());
        made
    }

    fn known(backups: &[Backup], store: &str, node: &str) -> Vec<String> {
        let mut target = Target::without_data("shop_db", "s", &json!({}));
        target.node = Some(node.to_owned());
        dirs(&settings(), backups, &target, store)
    }

    #[test]
    fn what_all_nodes_share_is_known_by_whatever_it_holds_and_a_volume_of_the_engine_by_nothing() {
        let nothing: [String; 0] = [];
        for store in ["nfs", "cloud"] {
            let all = [
                stored("old", 1, store, "shop_db", ""),
                stored("new", 3, store, "blog_db", "n2"),
                stored("elsewhere", 4, "default", "shop_db", "n1"),
                Backup {
                    removing: Some("2026-01-02T00:00:00Z".parse().unwrap()),
                    ..stored("going", 2, store, "shop_db", "n1")
                },
                Backup { copies: vec![store.to_owned()], ..stored("copied", 2, "default", "shop_db", "n1") },
            ];
            assert_eq!(known(&all, store, "n1"), ["new", "copied", "old"], "{store}");
            assert_eq!(known(&all, "default", "n1"), nothing);
            assert_eq!(known(&all, "unknown", "n1"), nothing);
            assert_eq!(known(&[], store, "n1"), nothing, "nothing was ever written there");
        }
    }

    #[test]
    fn a_directory_of_the_host_is_known_by_what_was_written_from_the_same_node_or_of_the_same_service() {
        let of = |store: &str| {
            [
                stored("before-nodes-were-noted", 1, store, "shop_db", ""),
                stored("of-service", 2, store, "shop_db", "n2"),
                stored("of-node", 3, store, "blog_db", "n1"),
                stored("of-neither", 4, store, "blog_db", "n2"),
                stored("of-nobody-knows", 5, store, "blog_db", ""),
            ]
        };
        assert_eq!(known(&of("dir"), "dir", "n1"), ["of-node", "of-service", "before-nodes-were-noted"]);
        assert_eq!(known(&of("bound"), "bound", "n1"), ["of-node"]);
    }

    #[test]
    fn the_newest_are_told_and_not_too_many_of_them() {
        let all: Vec<Backup> =
            (0..40).map(|n| stored(&format!("b{n:02}"), 1 + n % 28, "cloud", "shop_db", "")).collect();
        let told = known(&all, "cloud", "n1");
        assert_eq!((told.len(), told[0].as_str()), (MOST, "b27"));
    }
}
