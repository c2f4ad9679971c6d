//! Makes the files that `/docs` serves: openapi.yaml as JSON, and Swagger UI. Swagger UI comes from a crate, so that no
//! browser calls another host. All files are compressed here, once.

use std::{
    env,
    error::Error,
    fmt::Write as _,
    fs,
    io::{Read as _, Write as _},
    path::Path,
};

use flate2::{Compression, read::DeflateDecoder, write::GzEncoder};
use rawzip::ZipArchive;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED;

const OPENAPI: &str = "../../openapi.yaml";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={OPENAPI}");
    println!("cargo::rerun-if-changed=src");
    println!("cargo::rerun-if-changed=build.rs");
    let mut files = vec![
        ("openapi.json", "application/json", openapi()?),
        ("swagger-ui.css", "text/css; charset=utf-8", swagger_ui("/dist/swagger-ui.css")?),
        ("swagger-ui-bundle.js", "text/javascript; charset=utf-8", swagger_ui("/dist/swagger-ui-bundle.js")?),
        ("LICENSE.txt", "text/plain; charset=utf-8", swagger_ui("/LICENSE")?),
        ("docs.css", "text/css; charset=utf-8", fs::read("src/docs.css")?),
        ("docs.js", "text/javascript; charset=utf-8", fs::read("src/docs.js")?),
    ];
    // The page links each file with a hash of its content, so that a browser may keep the file for a year.
    let mut page = fs::read_to_string("src/docs.html")?;
    for (name, _, content) in &files {
        page = page.replace(&format!("docs/{name}\""), &format!("docs/{name}?v={}\"", version(content)));
    }
    files.push(("docs", "text/html; charset=utf-8", page.into_bytes()));

    let folder = env::var("OUT_DIR")?;
    let mut list = String::from("&[\n");
    for (name, content_type, content) in files {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        gzip.write_all(&content)?;
        let path = Path::new(&folder).join(name).with_added_extension("gz");
        fs::write(&path, gzip.finish()?)?;
        let version = version(&content);
        let (etag, query) = (format!("W/\"{version}\""), format!("v={version}"));
        let path = path.display().to_string();
        writeln!(
            list,
            "File {{ name: {name:?}, content_type: {content_type:?}, etag: {etag:?}, query: {query:?}, \
             gzipped: include_bytes!({path:?}) }},"
        )?;
    }
    fs::write(Path::new(&folder).join("files.rs"), list + "]")?;
    Ok(())
}

/// The contract, with one server: the reference's own. "Try it out" sends its requests there.
fn openapi() -> Result<Vec<u8>, Box<dyn Error>> {
    let read = serde_saphyr::from_str(&fs::read_to_string(OPENAPI)?);
    let mut openapi: Value = read.inspect_err(|_| eprintln!("openapi.yaml cannot be read."))?;
    // YAML has put it in its places.
    openapi.as_object_mut().map(|members| members.remove("x-shared"));
    openapi["servers"] = json!([{ "url": "..", "description": "The server of this page." }]);
    Ok(serde_json::to_vec(&openapi)?)
}

fn swagger_ui(name: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    let archive = ZipArchive::from_slice(SWAGGER_UI_VENDORED)?;
    for file in archive.entries() {
        let file = file?;
        if file.file_path().as_ref().ends_with(name.as_bytes()) {
            let file = archive.get_entry(file.wayfinder())?;
            let mut content = Vec::new();
            file.verifying_reader(DeflateDecoder::new(file.data())).read_to_end(&mut content)?;
            return Ok(content);
        }
    }
    Err(format!("Swagger UI has no {name}").into())
}

fn version(content: &[u8]) -> String {
    let digest = Sha256::digest(content);
    format!("{:016x}", u64::from_be_bytes(std::array::from_fn(|index| digest[index])))
}
