//! The command line as containerd and podman call it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::support::{busybox, eventually, failed, layer, program, spec, succeeded};

/// Name, change of the spec, the error wanted.
type Case<'a> = (&'a str, &'a dyn Fn(&mut Value), &'a str);

/// A bundle and a root of states of its own.
pub(crate) struct Bundle {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) id: String,
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let _ = self.oci(&["delete", "--force", &self.id.clone()]);
        // Deleting leaves the parents of a cgroup to whoever named them; they stay while others need them.
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            for parent in ["trimtab-test/oci", "trimtab-test"] {
                let _ = fs::remove_dir(hierarchy.path().join(parent));
            }
        }
    }
}

impl Bundle {
    pub(crate) fn new(id: &str, script: &str, change: impl FnOnce(&mut Value)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::rename(layer(dir.path()), dir.path().join("rootfs")).unwrap();
        let id = format!("{id}-{}", std::process::id());
        let mut spec = spec(script);
        spec["root"]["path"] = json!("rootfs");
        spec["linux"]["cgroupsPath"] = json!(format!("/trimtab-test/oci/{id}"));
        change(&mut spec);
        fs::write(dir.path().join("config.json"), spec.to_string()).unwrap();
        fs::create_dir(dir.path().join("states")).unwrap();
        Self { dir, id }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("states")
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.arg("oci").arg("--root").arg(self.root()).args(args).stdin(Stdio::null());
        command
    }

    pub(crate) fn oci(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs a command that must succeed; its standard output.
    pub(crate) fn good(&self, args: &[&str]) -> String {
        succeeded(args, self.oci(args))
    }

    pub(crate) fn bad(&self, args: &[&str]) -> String {
        failed(args, self.oci(args)).trim().strip_prefix("error: ").unwrap().to_owned()
    }

    pub(crate) fn status(&self) -> String {
        let state: Value = serde_json::from_str(&self.good(&["state", &self.id])).unwrap();
        state["status"].as_str().unwrap().to_owned()
    }

    pub(crate) fn bundle(&self) -> &str {
        self.dir.path().to_str().unwrap()
    }
}

#[test]
fn run_gives_output_and_exit_code() {
    let Some(_) = busybox() else { return };
    let bundle = Bundle::new("run", "echo hello; hostname; exit 3", |s| s["hostname"] = json!("inside"));
    let output = bundle.oci(&["run", "--bundle", bundle.bundle(), &bundle.id]);
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stdout).as_ref()), (Some(3), "hello\ninside\n"));
    assert!(bundle.bad(&["state", &bundle.id]).ends_with("does not exist"));
    assert_eq!(bundle.good(&["list", "-q"]), "");
    // A script whose interpreter is not there: as a shell says it.
    let script = bundle.dir.path().join("rootfs/script");
    fs::write(&script, "#!/nowhere\n").unwrap();
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let config = bundle.dir.path().join("config.json");
    let mut spec: Value = serde_json::from_str(&fs::read_to_string(&config).unwrap()).unwrap();
    spec["process"]["args"] = json!(["/script"]);
    fs::write(config, spec.to_string()).unwrap();
    let output = bundle.oci(&["run", "--bundle", bundle.bundle(), &bundle.id]);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "exec /script: no such file or directory\n");
}

#[test]
fn a_container_goes_through_its_states() {
    let Some(_) = busybox() else { return };
    let bundle = Bundle::new("life", "echo started > /mark; sleep 1000", |_| {});
    let id = bundle.id.as_str();
    let pid_file = bundle.dir.path().join("pid");
    // Whoever creates is not the parent for long: streams must not be pipes we wait for.
    let mut create = bundle.command(&["create", "-b", bundle.bundle(), "--pid-file", pid_file.to_str().unwrap(), id]);
    assert!(create.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    let mark = bundle.dir.path().join("rootfs/mark");
    assert_eq!(bundle.status(), "created");
    assert!(!mark.exists());
    let pid = fs::read_to_string(pid_file).unwrap();
    assert!(Path::new("/proc").join(&pid).exists());
    assert!(bundle.bad(&["create", "-b", bundle.bundle(), id]).contains("exists already"));
    bundle.good(&["start", id]);
    eventually("it starts", || mark.exists());
    assert!(bundle.bad(&["delete", id]).contains("not stopped"));
    assert_eq!(bundle.status(), "running");
    assert!(bundle.bad(&["start", id]).contains("running"));
    bundle.good(&["pause", id]);
    assert_eq!(bundle.status(), "paused");
    assert!(bundle.bad(&["exec", id, "true"]).contains("paused"));
    bundle.good(&["resume", id]);
    let output = bundle.oci(&[
        "exec",
        "-e",
        "A=b",
        "-u",
        "1000:1000",
        "--cwd",
        "/tmp",
        id,
        "sh",
        "-c",
        "id -u; echo $A $HOME; pwd; exit 6",
    ]);
    assert_eq!(
        (output.status.code(), String::from_utf8_lossy(&output.stdout).as_ref()),
        (Some(6), "1000\nb /home/u\n/tmp\n")
    );
    assert!(bundle.bad(&["exec", id, "nowhere"]).contains("executable file not found in $PATH"));
    let pids: Vec<u32> = serde_json::from_str(&bundle.good(&["ps", "-f", "json", id])).unwrap();
    assert!(pids.contains(&pid.parse().unwrap()));
    bundle.good(&["kill", id, "KILL"]);
    eventually("it stops", || bundle.status() == "stopped");
    assert!(bundle.bad(&["kill", id, "9"]).contains("not running"));
    bundle.good(&["delete", id]);
    bundle.good(&["delete", "--force", id]);
    let found = Command::new("find").args(["/sys/fs/cgroup", "-name", id]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
}

#[test]
fn errors_come_early_and_leave_nothing() {
    let Some(_) = busybox() else { return };
    let cases: [Case<'_>; 6] = [
        ("args", &|s| s["process"]["args"] = json!(["nowhere"]), "executable file not found in $PATH"),
        ("version", &|s| s["ociVersion"] = json!("2.0"), "ociVersion"),
        (
            "twice",
            &|s| s["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "pid"})),
            "linux.namespaces: pid occurs twice",
        ),
        (
            "ns",
            &|s| s["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "network", "path": "/nowhere"}]),
            "linux.namespaces: open /nowhere",
        ),
        (
            "rlimit",
            &|s| s["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 9, "hard": 8}]),
            "process.rlimits",
        ),
        ("terminal", &|s| s["process"]["terminal"] = json!(true), "--console-socket"),
    ];
    for (id, change, want) in cases {
        let bundle = Bundle::new(id, "true", change);
        let log = bundle.dir.path().join("log");
        let log_name = log.to_str().unwrap();
        let error =
            bundle.bad(&["--log", log_name, "--log-format", "json", "create", "-b", bundle.bundle(), &bundle.id]);
        assert!(error.contains(want), "{id}: {error}");
        let record: Value = serde_json::from_str(fs::read_to_string(&log).unwrap().lines().last().unwrap()).unwrap();
        assert_eq!(record["msg"].as_str(), Some(error.as_str()));
        assert_eq!(bundle.good(&["list", "-q"]), "");
    }
    let bundle = Bundle::new("id", "true", |_| {});
    assert!(bundle.bad(&["create", "-b", bundle.bundle(), "../x"]).contains("does not match"));
}

#[test]
fn hooks_run_in_order() {
    let Some(_) = busybox() else { return };
    let bundle = Bundle::new("hooks", "cat /hooks", |_| {});
    let file = bundle.dir.path().join("rootfs/hooks");
    let config = bundle.dir.path().join("config.json");
    let mut spec: Value = serde_json::from_str(&fs::read_to_string(&config).unwrap()).unwrap();
    let outside = |name: &str| json!([{"path": "/bin/sh", "args": ["sh", "-c", format!("grep -q {} && echo {name} >> {}", bundle.id, file.display())]}]);
    spec["hooks"] = json!({"poststop": outside("poststop"), "createRuntime": outside("createRuntime"), "createContainer": outside("createContainer"),
        "startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", "echo startContainer >> /hooks"]}]});
    fs::write(&config, spec.to_string()).unwrap();
    let output = bundle.oci(&["run", "-b", bundle.bundle(), &bundle.id]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(text, "createRuntime\ncreateContainer\nstartContainer\n", "{}", String::from_utf8_lossy(&output.stderr));
    assert!(fs::read_to_string(&file).unwrap().ends_with("poststop\n"));
    spec["hooks"] = json!({"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "100"], "timeout": 1}]});
    fs::write(&config, spec.to_string()).unwrap();
    assert!(bundle.bad(&["run", "-b", bundle.bundle(), &bundle.id]).contains("timed out"));
    assert_eq!(bundle.good(&["list", "-q"]), "");
}

#[test]
fn start_waits_for_its_hooks_and_tells_of_them() {
    let Some(_) = busybox() else { return };
    for (script, good) in [("sleep 0.3; echo ran > /hook", true), ("sleep 0.3; exit 7", false)] {
        let bundle = Bundle::new("gate", "sleep 1000", |s| {
            s["hooks"] = json!({"startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]});
        });
        let [config, after] = ["config.json", "after"].map(|name| bundle.dir.path().join(name));
        let mut spec: Value = serde_json::from_str(&fs::read_to_string(&config).unwrap()).unwrap();
        spec["hooks"]["poststop"] =
            json!([{"path": "/bin/sh", "args": ["sh", "-c", format!("cat > {}", after.display())]}]);
        fs::write(&config, spec.to_string()).unwrap();
        let id = bundle.id.as_str();
        let mut create = bundle.command(&["create", "-b", bundle.bundle(), id]);
        assert!(create.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
        if good {
            bundle.good(&["start", id]);
            assert!(bundle.dir.path().join("rootfs/hook").exists());
            assert_eq!(bundle.status(), "running");
        } else {
            let error = bundle.bad(&["start", id]);
            assert!(error.contains("startContainer hook #0") && error.contains("exit code 7"), "{error}");
            // As by runtime.md, Lifecycle 7, then 12 and 13.
            assert!(bundle.bad(&["state", id]).ends_with("does not exist"));
            assert!(bundle.dir.path().join("after").exists());
        }
    }
}

#[test]
fn what_hooks_began_is_cleaned_up_by_others() {
    let Some(_) = busybox() else { return };
    let shell = |script: &str| json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}]);
    for (kind, program) in [
        ("prestart", "true"),
        ("createRuntime", "true"),
        ("createContainer", "true"),
        ("startContainer", "true"),
        ("poststart", "true"),
        // Not the hook's fault, but it has run.
        ("none", "nowhere"),
    ] {
        let bundle = Bundle::new("undone", "true", |s| s["process"]["args"] = json!([program]));
        let [config, before, after] = ["config.json", "before", "after"].map(|name| bundle.dir.path().join(name));
        let mut spec: Value = serde_json::from_str(&fs::read_to_string(&config).unwrap()).unwrap();
        let touch = |file: &Path| format!("cat >> {}", file.display());
        spec["hooks"] = json!({"createRuntime": shell(&touch(&before)), "poststop": shell(&touch(&after))});
        if kind != "none" {
            spec["hooks"][kind] = shell("exit 7");
        }
        fs::write(&config, spec.to_string()).unwrap();
        let error = bundle.bad(&["run", "-b", bundle.bundle(), &bundle.id]);
        assert!(error.contains(if kind == "none" { "nowhere" } else { "exit code 7" }), "{kind}: {error}");
        let state: Value = serde_json::from_str(&fs::read_to_string(&after).unwrap()).unwrap();
        assert_eq!(state["status"], "stopped", "{kind}");
        assert_eq!(bundle.good(&["list", "-q"]), "", "{kind}");
    }
    // Nothing had begun.
    let bundle = Bundle::new("undone", "true", |_| {});
    let [config, after] = ["config.json", "after"].map(|name| bundle.dir.path().join(name));
    let mut spec: Value = serde_json::from_str(&fs::read_to_string(&config).unwrap()).unwrap();
    spec["linux"]["cgroupsPath"] = json!("..");
    spec["hooks"] = json!({"poststop": shell(&format!("cat >> {}", after.display()))});
    fs::write(&config, spec.to_string()).unwrap();
    bundle.bad(&["run", "-b", bundle.bundle(), &bundle.id]);
    assert!(!after.exists());
}

#[test]
fn user_namespaces_map_ids() {
    let Some(_) = busybox() else { return };
    let script = "id -u; cat /proc/self/uid_map; stat -c %t:%T /dev/null; stat -c '%t:%T %u:%g %a' /dev/other; mount | grep -c /dev/other";
    let bundle = Bundle::new("user", script, |s| {
        s["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        s["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "network"}));
        s["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
        s["linux"]["gidMappings"] = json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
        // Not a name of the host's, which a container could be shown.
        s["linux"]["devices"] =
            json!([{"path": "/dev/other", "type": "b", "major": 1, "minor": 5, "uid": 10, "gid": 11, "fileMode": 416}]);
    });
    let output = bundle.oci(&["run", "-b", bundle.bundle(), &bundle.id]);
    let text = String::from_utf8_lossy(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(text, "0 0 100000 1000 1:3 1:5 10:11 640 1", "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn features_and_spec_are_documents() {
    let dir = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| Command::new(program()).arg("oci").args(args).current_dir(dir.path()).output().unwrap();
    let features: Value = serde_json::from_slice(&run(&["features"]).stdout).unwrap();
    for part in ["seccomp", "apparmor", "selinux"] {
        assert_eq!(features["linux"][part]["enabled"], json!(true), "{part}");
    }
    assert!(run(&["spec"]).status.success());
    let spec: Value = serde_json::from_slice(&fs::read(dir.path().join("config.json")).unwrap()).unwrap();
    assert_eq!(spec["process"]["args"], json!(["sh"]));
    assert!(!run(&["spec"]).status.success());
}
