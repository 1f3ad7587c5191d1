//! The store on S3, on servers of both kinds: an emulator that has every call, and a real one that checks
//! signatures. What needs a server that is not installed is ignored, with the reason; see `s3rep_testkit::server`.
#![allow(clippy::unwrap_used, reason = "a failure is a failure of the test")]
#![allow(unreachable_pub, reason = "shared by the cases")]

#[path = "s3_cases/broken.rs"]
mod broken;
mod common;
#[path = "s3_cases/fake.rs"]
mod fake;
#[path = "s3_cases/foreign.rs"]
mod foreign;
#[path = "s3_cases/objects.rs"]
mod objects;
mod promises;
#[path = "s3_cases/setup.rs"]
mod setup;

use std::{future::Future, panic, pin::Pin, sync::Arc};

use libtest_mimic::{Arguments, Failed, Trial};
use s3rep_testkit::server::start_s3;
use setup::Bench;
use tokio::runtime::Runtime;

type Running = Pin<Box<dyn Future<Output = ()> + Send>>;
type Case = fn(Bench) -> Running;
type FakeCase = fn() -> Running;

/// A case by its name.
macro_rules! cases {
    ($($module:ident::$case:ident),* $(,)?) => {
        [$((stringify!($case), (|bench| Box::pin($module::$case(bench))) as Case)),*]
    };
}

/// What moto is not fit for.
const NOT_ON_MOTO: [(&str, &str); 3] = [
    ("cut_requests_lose_nothing", "it takes half a request for a whole one"),
    ("changes_of_one_object_are_counted", "it looks at If-Match some time before it writes"),
    ("wrong_credentials_are_named", "it takes every signature"),
];

/// On every server.
fn on_servers() -> Vec<(&'static str, Case)> {
    let promises: [(&str, Case); 4] = [
        ("objects_are_put_read_replaced_and_deleted", |bench| {
            Box::pin(promises::objects_are_put_read_replaced_and_deleted(bench.any()))
        }),
        ("listings_are_in_the_order_of_bytes_in_pages_of_any_size", |bench| {
            Box::pin(promises::listings_are_in_the_order_of_bytes_in_pages_of_any_size(bench.any()))
        }),
        ("keys_cannot_leave_the_store", |bench| Box::pin(promises::keys_cannot_leave_the_store(bench.any()))),
        ("one_of_many_creators_wins", |bench| Box::pin(promises::one_of_many_creators_wins(bench.any()))),
    ];
    let own = cases![
        objects::a_bucket_without_a_prefix,
        objects::odd_keys_come_back,
        objects::many_pages,
        objects::pages_of_any_size,
        objects::metadata_has_a_limit_and_comes_back_as_it_went,
        objects::content_types,
        objects::many_are_read_in_order_and_deleted,
        objects::changes_of_one_object_are_counted,
        objects::changes_can_create_leave_and_fail,
        objects::settled_by_the_servers_clock,
        objects::requests_are_counted,
        objects::a_database_on_s3,
        objects::the_bucket_is_named_when_missing,
        objects::wrong_credentials_are_named,
        objects::the_default_chain_reads_the_environment,
        broken::an_overloaded_server_is_asked_again,
        broken::cut_answers_lose_nothing,
        broken::cut_requests_lose_nothing,
        broken::an_echo_is_told_from_somebody_else,
        broken::changes_survive_cut_answers,
        broken::a_server_that_says_nothing,
        broken::a_server_that_is_gone,
    ];
    promises.into_iter().chain(own).collect()
}

/// On servers that say what the case wants.
fn on_fakes() -> Vec<(&'static str, FakeCase)> {
    macro_rules! fakes {
        ($($case:ident),* $(,)?) => {
            vec![$((stringify!($case), || Box::pin(foreign::$case()) as Running)),*]
        };
    }
    fakes![
        metadata_of_others_is_read,
        metadata_that_is_left_out_is_an_error,
        another_region_is_named,
        a_clock_that_differs_is_named,
        a_page_that_is_no_answer_of_s3,
        without_preconditions_a_look_comes_before_the_write,
        etags_in_quotes_for_servers_that_want_them,
        conflicts_are_tried_again,
        a_date_decides_what_is_settled,
        keys_that_are_not_ours_are_left_out,
        deletes_of_many_tell_of_each,
        nobody_signs_when_anonymous,
        without_credentials,
        one_page_ahead_and_no_more,
    ]
}

fn main() {
    if setup::is_child() {
        return setup::child();
    }
    let arguments = Arguments::from_args();
    let runtime = Arc::new(Runtime::new().unwrap());
    let mut trials: Vec<Trial> =
        on_fakes().into_iter().map(|(name, case)| trial(format!("fake/{name}"), &runtime, case)).collect();
    // Listing the tests needs no server.
    let servers = if arguments.list { Vec::new() } else { runtime.block_on(start_s3(setup::BUCKET)) };
    for (name, server) in &servers {
        for (case, run) in on_servers() {
            let title = format!("{name}/{case}");
            if let Some((_, reason)) = NOT_ON_MOTO.iter().find(|(not, _)| *name == "moto" && *not == case) {
                let title = format!("{title} (ignored: {reason})");
                trials.push(Trial::test(title, || Ok(())).with_ignored_flag(true));
                continue;
            }
            trials.push(match server {
                Ok(server) => {
                    let bench = Bench::new(server.clone(), case);
                    trial(title, &runtime, move || run(bench))
                }
                Err(missing) => missing.trial(&title),
            });
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    // `exit` runs no destructor: servers end here.
    drop(servers);
    conclusion.exit();
}

fn trial<F>(title: String, runtime: &Arc<Runtime>, case: impl FnOnce() -> F + Send + 'static) -> Trial
where
    F: Future<Output = ()> + Send + 'static,
{
    let runtime = runtime.clone();
    Trial::test(title, move || match runtime.block_on(async { tokio::spawn(case()).await }) {
        Ok(()) => Ok(()),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => panic::resume_unwind(panic),
            Err(error) => Err(Failed::from(error.to_string())),
        },
    })
}
