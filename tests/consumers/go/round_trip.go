// SPDX-License-Identifier: MIT
//
// Reads lines of a schema and a request in hexadecimal, parses each request with Go's protobuf, serializes the message
// without a change, and writes the bytes in hexadecimal.
package main

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"log"
	"os"
	"strings"

	tvix "code.tvl.fyi/tvix/build-go"
	"google.golang.org/protobuf/proto"
	snix "snix.dev/build/proto"
)

func serialized(schema string, data []byte) ([]byte, error) {
	messages := map[string]proto.Message{
		"tvix.build.v1": new(tvix.BuildRequest),
		"snix.build.v1": new(snix.BuildRequest),
	}
	message, found := messages[schema]
	if !found {
		return nil, fmt.Errorf("expected a schema, found %q", schema)
	}
	if err := proto.Unmarshal(data, message); err != nil {
		return nil, err
	}
	return proto.MarshalOptions{Deterministic: true}.Marshal(message)
}

func main() {
	lines := bufio.NewReader(os.Stdin)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		schema, digits, _ := strings.Cut(strings.TrimSpace(line), " ")
		data, err := hex.DecodeString(digits)
		if err != nil {
			log.Fatal(err)
		}
		data, err = serialized(schema, data)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(hex.EncodeToString(data))
	}
}
