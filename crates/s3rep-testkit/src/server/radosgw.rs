//! Ceph's radosgw, a real S3 server that checks signatures, in front of one monitor and one store in memory.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Missing, Process, S3Server, STARTS, answers, free_port, private_directory, process::run};

const NAME: &str = "radosgw";
const ACCESS_KEY: &str = "RADOSGWTESTKEY000001";
const SECRET_KEY: &str = "radosgw/test+secret/0000000000000000001=";
/// How long one of the programs that set it up may take; less than a second on an idle machine.
const STEP: Duration = Duration::from_secs(60);

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
    for program in ["radosgw", "radosgw-admin", "ceph-mon", "ceph-osd", "ceph"] {
        if !Path::new("/usr/bin").join(program).exists() {
            return Err(format!("{program} is not installed"));
        }
    }
    let directory = private_directory()?;
    let cluster = Cluster { at: directory.path().to_owned(), monitor: free_port()?, gateway: free_port()? };
    let processes = cluster.start()?;
    let Some(gateway) = processes.last() else { return Err("nothing was started".to_owned()) };
    answers(cluster.gateway, gateway).await?;
    Ok(S3Server {
        name: NAME,
        endpoint: format!("http://127.0.0.1:{}", cluster.gateway),
        access_key: ACCESS_KEY,
        secret_key: SECRET_KEY,
        checks_signatures: true,
        processes,
        _directory: directory,
    })
}

struct Cluster {
    at: PathBuf,
    monitor: u16,
    gateway: u16,
}

impl Cluster {
    fn start(&self) -> Result<Vec<Process>, String> {
        for directory in ["mon", "osd", "rgw"] {
            fs::create_dir(self.at.join(directory)).map_err(|error| format!("{directory}: {error}"))?;
        }
        let id = "5d2f8f4c-6f0e-4f5e-9d0b-5f3b4c0a7e11";
        fs::write(self.at.join("ceph.conf"), self.configuration(id)).map_err(|error| error.to_string())?;
        self.keys()?;
        let (keyring, monmap) = (self.path("keyring"), self.path("monmap"));
        let address = format!("[v1:127.0.0.1:{}]", self.monitor);
        self.run("monmaptool", &["--create", "--addv", "a", &address, "--fsid", id, &monmap])?;
        self.run_here("ceph-mon", &["--mkfs", "-i", "a", "--monmap", &monmap, "--keyring", &keyring])?;
        let monitor = self.spawn("ceph-mon", &["-f", "-i", "a"])?;
        let osd = "9b1c7a52-3c52-4f0a-8f43-6c1d0f6b2a77";
        self.run_here("ceph", &["osd", "new", osd])?;
        self.run_here("ceph-osd", &["-i", "0", "--mkfs", "--osd-uuid", osd])?;
        let store = self.spawn("ceph-osd", &["-f", "-i", "0"])?;
        let user = ["-n", "client.rgw", "user", "create", "--uid", "test", "--display-name", "test"];
        let keys = ["--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY];
        self.run_here("radosgw-admin", &[&user[..], &keys].concat())?;
        let gateway = self.spawn("radosgw", &["-f", "-n", "client.rgw"])?;
        Ok(vec![monitor, store, gateway])
    }

    fn keys(&self) -> Result<(), String> {
        let all = "allow *";
        let keyring = self.path("keyring");
        self.run(
            "ceph-authtool",
            &["--create-keyring", &keyring, "--gen-key", "-n", "mon.", "--cap", "mon", all],
        )?;
        for (name, monitor, store) in [
            ("client.admin", all, all),
            ("osd.0", "allow profile osd", all),
            ("client.rgw", "allow rwx", "allow rwx"),
        ] {
            self.run(
                "ceph-authtool",
                &[&keyring, "--gen-key", "-n", name, "--cap", "mon", monitor, "--cap", "osd", store],
            )?;
        }
        Ok(())
    }

    /// One copy of everything is enough, and a monitor that decides at once: it waits 1 s by default for others
    /// to say more, some twenty times until the gateway answers.
    fn configuration(&self, id: &str) -> String {
        let (at, monitor, gateway) = (self.at.display(), self.monitor, self.gateway);
        format!(
            "[global]
fsid = {id}
mon host = v1:127.0.0.1:{monitor}
mon initial members = a
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = {at}/keyring
run dir = {at}
crash dir = {at}
admin socket =
pid file =
log file = {at}/$name.log
mon cluster log file = {at}/cluster.log
mon data = {at}/mon
mon data avail crit = 1
mon data avail warn = 2
mon allow pool size one = true
mon max pg per osd = 1000
paxos propose interval = 0.05
paxos min wait = 0.01
osd data = {at}/osd
osd objectstore = memstore
memstore device bytes = 1073741824
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 2
rgw data = {at}/rgw
rgw frontends = beast endpoint=127.0.0.1:{gateway}
rgw thread pool size = 64
rgw enable usage log = false
rgw enable gc threads = false
rgw enable lc threads = false
"
        )
    }

    fn path(&self, name: &str) -> String {
        self.at.join(name).display().to_string()
    }

    fn run(&self, program: &str, args: &[&str]) -> Result<(), String> {
        run(&format!("/usr/bin/{program}"), args, &self.at.join("setup"), STEP)
    }

    /// With the configuration of this cluster.
    fn run_here(&self, program: &str, args: &[&str]) -> Result<(), String> {
        self.run(program, &[&["-c", &self.path("ceph.conf")], args].concat())
    }

    fn spawn(&self, program: &str, args: &[&str]) -> Result<Process, String> {
        let configuration = self.path("ceph.conf");
        let args = [&["-c", &configuration], args].concat();
        Process::start(&Path::new("/usr/bin").join(program), &args, self.at.join("output"))
    }
}
