//! gRPC's C core as a client, through Debian's `python3-grpcio`: the plugin is called as a script or a sidecar in Python
//! would call it.

use std::process::Command;

use crate::support::driver::Machine;
use crate::support::tools::installed;

/// Calls Probe three times on one channel, and prints what went wrong.
const CLIENT: &str = r#"
import sys
sys.path.insert(0, "/usr/lib/python3/dist-packages")
import grpc
socket, options = sys.argv[1], [("grpc.default_authority", text) for text in sys.argv[2:]]
channel = grpc.insecure_channel("unix://" + socket, options=options)
probe = channel.unary_unary("/csi.v1.Identity/Probe", request_serializer=bytes, response_deserializer=bytes)
for _ in range(3):
    try:
        print(probe(b"", timeout=30).hex())
    except grpc.RpcError as error:
        print(error.code(), error.details())
"#;

#[tokio::test(flavor = "multi_thread")]
async fn clients_in_python_are_served() {
    let machine = Machine::new(&[]);
    let _plugin = machine.start().await;
    let socket = machine.path().join("csi.sock").display().to_string();
    // Releases after Debian's say the percent-encoded path by themselves.
    let encoded = socket.trim_start_matches('/').replace('/', "%2F");
    for authority in [None, Some(&*encoded), Some(&*socket)] {
        let mut client = Command::new(installed("/usr/bin/python3"));
        client.args(["-c", CLIENT, &socket]).args(authority);
        let output = client.output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "python3-grpcio is missing; run `make setup`: {complaint}");
        // ProbeResponse { ready: true }
        let expected = "0a020801\n".repeat(3);
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{authority:?}: {complaint}");
    }
}
