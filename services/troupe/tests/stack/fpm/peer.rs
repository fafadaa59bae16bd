//! nginx in front of php-fpm, as Debian sets them up, in a directory of their own.

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use troupe_testkit::{http, ports, wait};

/// Both servers. They end with this.
pub(super) struct Fpm {
    pub(super) address: SocketAddr,
    servers: Vec<Child>,
    _home: TempDir,
}

impl Fpm {
    /// Starts them with a script for each of `scripts`: name and code.
    pub(super) fn start(scripts: &[(&str, &str)]) -> Self {
        let home = TempDir::new().unwrap();
        let root = home.path().join("www");
        fs::create_dir(&root).unwrap();
        for (name, code) in scripts {
            fs::write(root.join(format!("{name}.php")), format!("<?php {code}")).unwrap();
        }
        // Their workers are another user when root starts them.
        for directory in [home.path(), &root] {
            fs::set_permissions(directory, Permissions::from_mode(0o777)).unwrap();
        }
        let address = ports::free();
        let as_root = rustix::process::geteuid().is_root();
        fs::write(home.path().join("fpm.conf"), fpm_conf(home.path(), as_root)).unwrap();
        fs::write(home.path().join("nginx.conf"), nginx_conf(home.path(), address, as_root)).unwrap();
        let mut fpm = Self { address, servers: Vec::new(), _home: home };
        let directory = fpm._home.path().to_owned();
        let (fpm_conf, nginx_conf, log) =
            (directory.join("fpm.conf"), directory.join("nginx.conf"), directory.join("start.log"));
        fpm.spawn(&["php-fpm8.2", "php-fpm8.4", "php-fpm"], &["-F".as_ref(), "-y".as_ref(), &fpm_conf]);
        fpm.spawn(&["nginx"], &["-e".as_ref(), &log, "-c".as_ref(), &nginx_conf]);
        wait::until("nginx and php-fpm to answer", Duration::from_secs(30), || {
            let response = http::get(address, &format!("/{}.php", scripts.first()?.0)).ok()?;
            (response.status == 200).then_some(())
        });
        fpm
    }

    fn spawn(&mut self, names: &[&str], arguments: &[&Path]) {
        let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
        for name in names {
            let mut command = Command::new(name);
            command.args(arguments).env("PATH", &path).stdout(Stdio::null()).stderr(Stdio::null());
            if let Ok(child) = command.spawn() {
                self.servers.push(child);
                return;
            }
        }
        panic!("{names:?}: not installed; apt-get install nginx-light php8.2-fpm");
    }
}

impl Drop for Fpm {
    fn drop(&mut self) {
        for server in &mut self.servers {
            // Ends their workers, too, which a SIGKILL would leave behind.
            let pid = rustix::process::Pid::from_child(server);
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            let _ = server.wait();
        }
    }
}

fn fpm_conf(home: &Path, as_root: bool) -> String {
    let home = home.display();
    let user = if as_root {
        "user = www-data\ngroup = www-data\nlisten.owner = www-data\nlisten.group = www-data\n"
    } else {
        ""
    };
    format!(
        "[global]\npid = {home}/fpm.pid\nerror_log = {home}/fpm.log\ndaemonize = no\n\
         [www]\n{user}listen = {home}/fpm.sock\npm = static\npm.max_children = 2\nphp_admin_value[session.save_path] = /tmp\n"
    )
}

fn nginx_conf(home: &Path, address: SocketAddr, as_root: bool) -> String {
    let home = home.display();
    let user = if as_root { "user www-data;\n" } else { "" };
    format!(
        "{user}daemon off;\nworker_processes 1;\npid {home}/nginx.pid;\nerror_log {home}/nginx.log;\nevents {{}}\nhttp {{\n\
         access_log off;\nclient_body_temp_path {home}/body;\nfastcgi_temp_path {home}/fastcgi;\nproxy_temp_path {home}/proxy;\n\
         scgi_temp_path {home}/scgi;\nuwsgi_temp_path {home}/uwsgi;\nserver {{\nlisten {address};\nserver_name troupe.test;\nroot {home}/www;\n\
         location ~ \\.php$ {{\ninclude /etc/nginx/fastcgi.conf;\nfastcgi_pass unix:{home}/fpm.sock;\n}}\n}}\n}}\n"
    )
}
