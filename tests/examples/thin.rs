//! thin
use skep::operation::{desk, drive, record::*, saga::Env, settings::Settings};
use skep::swarm::engine::Engine;
use skep::swarm::transport::Endpoint;
use std::sync::Arc;
use std::time::{Duration, Instant};
#[tokio::main]
async fn main() {
    tracing_subscriber::fmt().with_env_filter("info").init();
    let args: Vec<String> = std::env::args().collect();
    let engine = Engine::connect(Endpoint::Unix(args[1].clone().into())).await.unwrap();
    let runner: Arc<[u8]> = std::fs::read(&args[2]).unwrap().into();
    let mut settings = Settings::default();
    settings.page_image = "skep-test/nginx:1".to_owned();
    let env = Env {
        engine: engine.clone(),
        settings: Arc::new(settings),
        runner,
        clock: Arc::new(skep::runtime::clock::now),
    };
    let service = engine.service(&args[4]).await.unwrap();
    let now = skep::runtime::clock::now();
    let work = match args[3].as_str() {
        "backup" => Work::Backup,
        "restore" => Work::Restore {
            backup: None,
            before: None,
            in_place: Some(args.get(5).is_some_and(|a| a == "in-place")),
            quiesce: args.get(5).filter(|a| *a == "hot").map(|_| false),
        },
        _ => Work::Maintenance { until: Some(now + Duration::from_secs(8)) },
    };
    let id = OpId::new(now, &now.to_string());
    desk::create(
        &engine,
        &id,
        Intent {
            schema: 1,
            service: service.name().to_owned(),
            service_id: service.id.clone(),
            work,
            trigger: Trigger::Person { name: "me".into() },
            created: now,
            approval: false,
            accept_problems: false,
        },
    )
    .await
    .unwrap();
    let start = Instant::now();
    loop {
        match drive::poll(&env, &id).await {
            Ok(drive::Again::Idle) => break,
            Ok(drive::Again::After(d)) => tokio::time::sleep(d).await,
            Err(e) => {
                println!("ERR {e}");
                tokio::time::sleep(Duration::from_millis(500)).await
            }
        }
    }
    let op = desk::find(&engine, &id).await.unwrap();
    println!("{:?} in {:?}", op.journal.state, start.elapsed());
    for (n, r) in &op.journal.steps {
        println!("  {n:10} {:?} {} {} {}", r.state, r.changed.duration_since(r.began), r.note, r.out);
    }
    println!("remarks {:#?}", op.journal.remarks);
}
