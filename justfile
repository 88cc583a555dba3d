# Thin recipes over `cargo xtask`.

# List recipes
default:
    @just --list

# Build plugins, page and host
build:
    cargo xtask build

# Build and serve on http://127.0.0.1:8080
serve *args:
    cargo xtask serve {{args}}

# Build, then all tests
test *args:
    cargo xtask test {{args}}

# OpenAI's packages and schemathesis against the server
clients:
    cargo xtask clients

# Plugins in Rust, JavaScript and Python, as `specula plugin new` makes them
authors:
    cargo xtask authors

# ONNX Runtime for the tests of drafts on accelerators: openvino and qnn are packages with more of them
onnxruntime *packages:
    cargo xtask onnxruntime {{packages}}

# Every method against the target alone, under every parameter
exactness *args:
    cargo xtask exactness {{args}}

# The kernels' tests under AddressSanitizer
sanitize:
    cargo xtask sanitize

# Formatting and clippy
lint:
    cargo xtask lint

# What this machine can build and test
doctor:
    cargo xtask doctor

# Methods against each other on the validation prompts
bench *args: build
    target/release/specula bench {{args}}
