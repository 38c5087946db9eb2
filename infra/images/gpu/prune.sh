#!/bin/sh
# Removes from a directory of installed packages what torch never loads to run a model: tools, headers, and libraries that
# neither torch nor another one links or opens by name. What torch links stays, whether a model needs it or not.
#   prune.sh SITE
set -eu
cd "$1"

rm -rf torch/include torch/share torch/test torch/lib/libshm_windows nvidia/*/include nvidia/*/bin nvidia/*/nvvm
find torch/bin -type f ! -name torch_shm_manager -delete  # which an import looks for
cd nvidia/cu13/lib
rm -f libcusolverMg.so.* libcufftw.so.* libnvblas.so.*  # of several GPUs, of FFTW's interface, of BLAS's
rm -f libnvrtc.alt.so.* libnvrtc-builtins.alt.so.*  # another build of the compiler
rm -f libcufile_rdma.so.* libnvperf_*.so libpcsamplingutil.so libcheckpoint.so  # of clusters, of profilers
# Of NVSHMEM the host library is linked; the rest joins several machines.
find ../../nvshmem/lib -type f ! -name 'libnvshmem_host.so.*' -delete
