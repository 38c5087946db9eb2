#!/bin/sh
# Removes from a directory of installed packages what no request needs: the layer and the images have the rest.
#   prune.sh SITE
set -eu
cd "$1"

# Command-line and conversion tools, which no other module imports, and the library for C programs, of which ONNX
# Runtime's Python module has its own copy.
rm -rf bin onnxruntime/capi/libonnxruntime.so.* \
    onnxruntime/tools onnxruntime/transformers onnxruntime/quantization onnxruntime/datasets onnxruntime/backend \
    numpy/f2py numpy/_core/include numpy/random/lib
find . -type d \( -name tests -o -name __pycache__ -o -name '*-stubs' \) -prune -exec rm -r {} +
find . -type f \( -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.c' -o -name '*.h' -o -name '*.a' \) -delete
# Without boto3, botocore finds credentials and no more.
if test -d botocore && ! test -d boto3; then
    find botocore/data -mindepth 1 -maxdepth 1 -type d ! -name sts ! -name sso ! -name sso-oidc ! -name signin -exec rm -r {} +
fi
# Of a package's metadata, keep name, version, entry points and licence.
find . -path '*.dist-info/*' -type f ! -name METADATA ! -name entry_points.txt ! -ipath '*licen[sc]e*' ! -name 'NOTICE*' -delete
