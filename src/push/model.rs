//! Media types and annotations of files in ModelPack artifacts (CNCF model-spec 0.0.7, `specs-go/v1`). Pure.

use serde_json::json;

use super::item::Item;

/// The type of the artifact, and of its config.
pub(super) const ARTIFACT: &str = "application/vnd.cncf.model.manifest.v1+json";
pub(super) const CONFIG: &str = "application/vnd.cncf.model.config.v1+json";
pub(super) const FILEPATH: &str = "org.cncf.model.filepath";
pub(super) const METADATA: &str = "org.cncf.model.file.metadata+json";

/// The media type of a file, by what its name says that it is: of a name that says nothing, a configuration's.
pub(super) fn media_type(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    let class = match extension {
        "safetensors" | "gguf" | "ggml" | "bin" | "pt" | "pth" | "ckpt" | "onnx" | "h5" | "keras" | "pb"
        | "tflite" | "mlmodel" | "engine" | "npz" | "npy" | "msgpack" => "weight",
        "py" | "sh" | "ipynb" | "c" | "cc" | "cpp" | "cu" | "rs" | "go" | "js" | "ts" => "code",
        "md" | "txt" | "pdf" | "rst" | "html" | "png" | "jpg" | "jpeg" | "svg" if !is_vocabulary(&name) => {
            "doc"
        }
        "parquet" | "arrow" | "csv" | "jsonl" | "tsv" => "dataset",
        _ if ["license", "licence", "notice", "readme"].iter().any(|begin| name.starts_with(begin)) => "doc",
        _ => "weight.config",
    };
    format!("application/vnd.cncf.model.{class}.v1.raw")
}

/// Tokenizers have text files that are no documentation.
fn is_vocabulary(name: &str) -> bool {
    ["vocab.txt", "merges.txt", "added_tokens.txt", "special_tokens.txt"].contains(&name)
}

/// What readers learn of a file besides its content.
pub(super) fn metadata(item: &Item, path: &str) -> String {
    let meta = &item.meta;
    let nanos = i32::try_from(meta.mtime.nanos).unwrap_or_default();
    let time = jiff::Timestamp::new(meta.mtime.secs, nanos).unwrap_or_default();
    json!({
        "name": path.rsplit('/').next().unwrap_or(path),
        "mode": meta.mode & 0o777,
        "uid": meta.uid,
        "gid": meta.gid,
        "size": item.size(),
        "mtime": time.to_string(),
        "typeflag": 0,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_files_are() {
        for (path, class) in [
            ("model-00001-of-00002.safetensors", "weight"),
            ("a/b/ggml.GGUF", "weight"),
            ("config.json", "weight.config"),
            ("tokenizer.model", "weight.config"),
            ("vocab.txt", "weight.config"),
            ("README.md", "doc"),
            ("LICENSE", "doc"),
            ("run.py", "code"),
            ("train.parquet", "dataset"),
        ] {
            assert_eq!(media_type(path), format!("application/vnd.cncf.model.{class}.v1.raw"), "{path}");
        }
    }
}
