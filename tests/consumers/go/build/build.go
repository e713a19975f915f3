// SPDX-License-Identifier: MIT
//
// A client of snix.build.v1 and snix.castore.v1 that only has their .proto files: uploads a directory, runs a request
// with it as the input, and writes the outputs to a new directory.
//
//	build HOST:PORT INPUT OUTPUTS <REQUEST.json >NEEDLES.json
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	builds "snix.dev/build/proto"
	castore "snix.dev/castore/proto"
)

const chunkSize = 1 << 20

var background = context.Background()

type client struct {
	blobs       castore.BlobServiceClient
	directories castore.DirectoryServiceClient
	builds      builds.BuildServiceClient
}

// uploadBlob uploads a file, and returns its digest.
func (c client) uploadBlob(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	stream, err := c.blobs.Put(background)
	if err != nil {
		return nil, err
	}
	for buffer := make([]byte, chunkSize); ; {
		size, err := file.Read(buffer)
		if err == io.EOF {
			break
		} else if err != nil {
			return nil, err
		}
		// An error of Send is io.EOF; CloseAndRecv returns the status.
		if stream.Send(&castore.BlobChunk{Data: buffer[:size]}) != nil {
			break
		}
	}
	response, err := stream.CloseAndRecv()
	if err != nil {
		return nil, err
	}
	return response.Digest, nil
}

// upload uploads the blobs of a file system object. It returns the entry, and the Directories of its tree, leaves first.
func (c client) upload(path string) (*castore.Entry, []*castore.Directory, error) {
	name := []byte(filepath.Base(path))
	info, err := os.Lstat(path)
	if err != nil {
		return nil, nil, err
	}
	switch {
	case info.Mode()&os.ModeSymlink != 0:
		target, err := os.Readlink(path)
		link := &castore.SymlinkEntry{Name: name, Target: []byte(target)}
		return &castore.Entry{Entry: &castore.Entry_Symlink{Symlink: link}}, nil, err
	case !info.IsDir():
		digest, err := c.uploadBlob(path)
		executable := info.Mode()&0o100 != 0
		file := &castore.FileEntry{Name: name, Digest: digest, Size: uint64(info.Size()), Executable: executable}
		return &castore.Entry{Entry: &castore.Entry_File{File: file}}, nil, err
	}
	children, err := os.ReadDir(path)
	if err != nil {
		return nil, nil, err
	}
	directory := &castore.Directory{}
	var tree []*castore.Directory
	size := uint64(0)
	for _, child := range children {
		entry, below, err := c.upload(filepath.Join(path, child.Name()))
		if err != nil {
			return nil, nil, err
		}
		tree = append(tree, below...)
		size++
		switch one := entry.Entry.(type) {
		case *castore.Entry_Directory:
			directory.Directories = append(directory.Directories, one.Directory)
			size += one.Directory.Size
		case *castore.Entry_File:
			directory.Files = append(directory.Files, one.File)
		case *castore.Entry_Symlink:
			directory.Symlinks = append(directory.Symlinks, one.Symlink)
		}
	}
	tree = append(tree, directory)
	digest, err := c.uploadTree(tree)
	entry := &castore.DirectoryEntry{Name: name, Digest: digest, Size: size}
	return &castore.Entry{Entry: &castore.Entry_Directory{Directory: entry}}, tree, err
}

// uploadTree uploads Directories, leaves first, and returns the digest of the last one.
func (c client) uploadTree(tree []*castore.Directory) ([]byte, error) {
	stream, err := c.directories.Put(background)
	if err != nil {
		return nil, err
	}
	for _, directory := range tree {
		if stream.Send(directory) != nil {
			break
		}
	}
	response, err := stream.CloseAndRecv()
	if err != nil {
		return nil, err
	}
	return response.RootDigest, nil
}

func (c client) downloadBlob(file *castore.FileEntry, path string) error {
	if _, err := c.blobs.Stat(background, &castore.StatBlobRequest{Digest: file.Digest}); err != nil {
		return err
	}
	stream, err := c.blobs.Read(background, &castore.ReadBlobRequest{Digest: file.Digest})
	if err != nil {
		return err
	}
	var contents bytes.Buffer
	for {
		chunk, err := stream.Recv()
		if err == io.EOF {
			break
		} else if err != nil {
			return err
		}
		contents.Write(chunk.Data)
	}
	mode := os.FileMode(0o644)
	if file.Executable {
		mode = 0o755
	}
	return os.WriteFile(path, contents.Bytes(), mode)
}

func (c client) downloadDirectory(digest []byte, path string) error {
	request := &castore.GetDirectoryRequest{ByWhat: &castore.GetDirectoryRequest_Digest{Digest: digest}}
	stream, err := c.directories.Get(background, request)
	if err != nil {
		return err
	}
	directory, err := stream.Recv()
	if err != nil {
		return err
	}
	if _, err := stream.Recv(); err != io.EOF {
		return fmt.Errorf("expected one Directory, found %v", err)
	}
	if err := os.Mkdir(path, 0o755); err != nil {
		return err
	}
	for _, one := range directory.Directories {
		if err := c.downloadDirectory(one.Digest, filepath.Join(path, string(one.Name))); err != nil {
			return err
		}
	}
	for _, one := range directory.Files {
		if err := c.downloadBlob(one, filepath.Join(path, string(one.Name))); err != nil {
			return err
		}
	}
	for _, one := range directory.Symlinks {
		if err := os.Symlink(string(one.Target), filepath.Join(path, string(one.Name))); err != nil {
			return err
		}
	}
	return nil
}

func (c client) download(entry *castore.Entry, path string) error {
	switch one := entry.Entry.(type) {
	case *castore.Entry_Directory:
		return c.downloadDirectory(one.Directory.Digest, path)
	case *castore.Entry_File:
		return c.downloadBlob(one.File, path)
	case *castore.Entry_Symlink:
		return os.Symlink(string(one.Symlink.Target), path)
	}
	return errors.New("expected an entry with a member")
}

func run(address, input, outputs string) error {
	connection, err := grpc.Dial(address, grpc.WithInsecure())
	if err != nil {
		return err
	}
	defer connection.Close()
	c := client{
		castore.NewBlobServiceClient(connection),
		castore.NewDirectoryServiceClient(connection),
		builds.NewBuildServiceClient(connection),
	}
	encoded, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	request := &builds.BuildRequest{}
	if err := protojson.Unmarshal(encoded, request); err != nil {
		return err
	}
	entry, _, err := c.upload(input)
	if err != nil {
		return err
	}
	request.Inputs = []*castore.Entry{entry}
	response, err := c.builds.DoBuild(background, request)
	if err != nil {
		return err
	}
	if err := os.Mkdir(outputs, 0o755); err != nil {
		return err
	}
	needles := [][]uint64{}
	for i, output := range response.Outputs {
		path := filepath.Join(outputs, filepath.Base(request.Outputs[i]))
		if err := c.download(output.Output, path); err != nil {
			return err
		}
		needles = append(needles, output.Needles)
	}
	return json.NewEncoder(os.Stdout).Encode(needles)
}

func main() {
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
