//! moto 5.2.5, an emulator in Python: it has every call, conditional writes with exactly one winner, and times in
//! whole seconds as AWS. It takes any signature.

use super::{Missing, Process, S3Server, STARTS, answers, free_port, installed, private_directory};

const NAME: &str = "moto";

/// Starts one.
///
/// # Errors
/// [`Missing`] with the reason when it is not installed or does not come up.
pub async fn start() -> Result<S3Server, Missing> {
    let mut outcome = Err(String::new());
    for _ in 0..STARTS {
        outcome = start_once().await;
        if outcome.is_ok() {
            break;
        }
    }
    outcome.map_err(|reason| Missing::program(NAME, &reason))
}

async fn start_once() -> Result<S3Server, String> {
    let program = installed().join("moto-5.2.5/bin/moto_server");
    if !program.exists() {
        return Err("it is not installed".to_owned());
    }
    let (directory, port) = (private_directory()?, free_port()?);
    let args = ["-H", "127.0.0.1", "-p", &port.to_string()];
    let process = Process::start(&program, &args, directory.path().join("output"))?;
    answers(port, &process).await?;
    Ok(S3Server {
        name: NAME,
        endpoint: format!("http://127.0.0.1:{port}"),
        access_key: "moto-key",
        secret_key: "moto-secret",
        checks_signatures: false,
        processes: vec![process],
        _directory: directory,
    })
}
