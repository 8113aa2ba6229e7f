//! Somebody who is not root, and what he has: a bundle, a cgroup, namespaces.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};

use crate::oci::Bundle;
use crate::support::{eventually, failed, program, succeeded};

/// Who calls. The machine knows no such user.
pub(crate) const USER: u32 = 54_321;

/// Programs that make somebody of root who is USER.
pub(crate) const BECOME: [&str; 4] = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"];

/// A bundle, and all else, of USER.
pub(crate) struct Theirs {
    pub(crate) bundle: Bundle,
    pub(crate) program: PathBuf,
    /// Commands are run by this one.
    pub(crate) through: Vec<String>,
}

impl Theirs {
    pub(crate) fn new(id: &str, script: &str, change: impl FnOnce(&mut Value)) -> Self {
        let bundle = Bundle::new(id, script, |spec| {
            let linux = spec["linux"].as_object_mut().unwrap();
            linux.remove("cgroupsPath");
            linux.insert("uidMappings".to_owned(), maps(&[(0, USER, 1)]));
            linux.insert("gidMappings".to_owned(), maps(&[(0, USER, 1)]));
            linux["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
            for mount in spec["mounts"].as_array_mut().unwrap() {
                mount["options"].as_array_mut().unwrap().retain(|option| option != "gid=5");
            }
            change(spec);
        });
        // Where tests are built is not for everybody.
        let copy = bundle.dir.path().join("runtime");
        fs::copy(program(), &copy).unwrap();
        let theirs = Self { bundle, program: copy, through: BECOME.map(str::to_owned).to_vec() };
        theirs.give();
        theirs
    }

    /// What lies in the bundle is the user's, but for the program, as on any machine.
    pub(crate) fn give(&self) {
        let owner = format!("{USER}:{USER}");
        assert!(Command::new("chown").args(["-Rh", &owner]).arg(self.path("")).status().unwrap().success());
        assert!(Command::new("chown").arg("0:0").arg(&self.program).status().unwrap().success());
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.bundle.dir.path().join(name)
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Value)) {
        let path = self.path("config.json");
        let mut spec: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut spec);
        fs::write(path, spec.to_string()).unwrap();
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let (first, rest) = self.through.split_first().unwrap();
        let mut command = Command::new(first);
        command.args(rest).arg(&self.program).args(["oci", "--root"]).arg(self.bundle.root()).args(args);
        command.env_remove("XDG_RUNTIME_DIR").stdin(Stdio::null());
        command
    }

    pub(crate) fn oci(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    pub(crate) fn good(&self, args: &[&str]) -> String {
        succeeded(args, self.oci(args))
    }

    pub(crate) fn bad(&self, args: &[&str]) -> String {
        failed(args, self.oci(args))
    }

    /// Runs to the end: both outputs.
    pub(crate) fn run(&self) -> String {
        let output = self.oci(&["run", "-b", self.bundle.bundle(), &self.bundle.id]);
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat()
    }

    /// Runs in the background with the streams closed.
    pub(crate) fn detach(&self) {
        let mut run = self.command(&["run", "-d", "-b", self.bundle.bundle(), &self.bundle.id]);
        assert!(run.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success(), "{}", self.run());
    }
}

/// (Inside, outside, how many).
pub(crate) fn maps(maps: &[(u32, u32, u32)]) -> Value {
    maps.iter().map(|(inside, outside, size)| json!({"containerID": inside, "hostID": outside, "size": size})).collect()
}

/// The words of a command that runs shell words as root before it becomes the user.
pub(crate) fn after(words: &str) -> Vec<String> {
    let before = ["unshare", "--mount", "sh", "-c"].map(str::to_owned);
    [before.as_slice(), &[format!("{words} && exec \"$@\""), "sh".to_owned()], &BECOME.map(str::to_owned)].concat()
}

/// A cgroup that root gave to the user, with one in it where he works.
pub(crate) struct Delegated(pub(crate) PathBuf);

impl Delegated {
    pub(crate) fn new(id: &str) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let v2 = mounts.lines().find(|line| line.contains(" / ") && line.contains(" - cgroup2 "));
        let Some(root) = v2.and_then(|line| line.split(' ').nth(4)) else {
            println!("skipped: cgroup v2 is not mounted");
            return None;
        };
        let group = Self(Path::new(root).join(format!("trimtab-delegated-{id}")));
        fs::create_dir_all(group.0.join("caller")).unwrap();
        for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads", "caller", "caller/cgroup.procs"] {
            std::os::unix::fs::chown(group.0.join(file), Some(USER), Some(USER)).unwrap();
        }
        Some(group)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.join(name).exists()
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
        for place in ["caller", ""] {
            eventually("the cgroup is removed", || {
                !self.0.join(place).exists() || fs::remove_dir(self.0.join(place)).is_ok()
            });
        }
    }
}

/// A process in namespaces of its own.
pub(crate) struct Holder(pub(crate) Child);

impl Holder {
    pub(crate) fn new(through: &[&str]) -> Self {
        let mut command = Command::new(through[0]);
        let line = "echo ready; exec sleep 1000";
        let mut child = command.args(&through[1..]).args(["sh", "-c", line]).stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = String::new();
        let output = child.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut ready).unwrap();
        assert_eq!(ready, "ready\n");
        Self(child)
    }

    pub(crate) fn namespace(&self, name: &str) -> String {
        format!("/proc/{}/ns/{name}", self.0.id())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
