"""nginx, where the machine has it."""

from __future__ import annotations

import re
import shutil
import subprocess

from bench.processes import free_port
from bench.target import Running, Site, Target

CONFIG = """
daemon off;
worker_processes 1;
pid {scratch}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 65536; }}
http {{
  access_log off;
  client_body_temp_path {scratch}/body;
  proxy_temp_path {scratch}/proxy;
  fastcgi_temp_path {scratch}/fastcgi;
  uwsgi_temp_path {scratch}/uwsgi;
  scgi_temp_path {scratch}/scgi;
  keepalive_requests 100000000;
  upstream nodes {{ {servers} keepalive 256; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://nodes;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_read_timeout 300s;
    }}
  }}
}}
"""


def _program() -> str | None:
    return shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin")


def start(site: Site) -> Running:
    """Starts nginx with a master and one worker."""
    program = _program() or "nginx"
    port, scratch = free_port(), site.scratch / "nginx"
    scratch.mkdir(exist_ok=True)
    servers = " ".join(f"server 127.0.0.1:{upstream};" for upstream in site.upstreams)
    config = scratch / "nginx.conf"
    config.write_text(CONFIG.format(scratch=scratch, port=port, servers=servers))
    process = site.processes.start("nginx", [program, "-p", scratch, "-c", config, "-e", "stderr"], site.cores.server)
    site.processes.wait_ready("nginx", process, f"http://127.0.0.1:{port}/health", 15)
    said = subprocess.run([program, "-v"], capture_output=True, text=True, check=False).stderr
    version = re.search(r"nginx/(\S+)", said)
    return Running(port, process, version[1] if version else "unknown")


TARGET = Target(
    "nginx",
    "relaying only, one worker",
    start,
    missing=lambda: None if _program() else "not installed on this machine",
)
