// SPDX-License-Identifier: MIT

// Server: an HTTP server that uses the CPU and allocates, and its clients, in one program or two.
//
//	server                           serves, and loads itself with -clients goroutines
//	server -serve-only               serves on -listen; says "ready PID ADDRESS"
//	server -url URL -duration 5s     loads another one, says how many requests a second it answered
//	server -scrape URL -duration 5s  fetches the heap profile every second, as a scraper does
//
// Commands of the first: "measure SECONDS" answers {"requests": N, "seconds": S, "gcs": N}, "quit".
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	_ "net/http/pprof"
	"os"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

type item struct {
	ID    int
	Name  string
	Tags  []string
	Price float64
	More  map[string]string
}

func makeItems(n int) []item {
	items := make([]item, 0, 4)
	for i := 0; i < n; i++ {
		items = append(items, item{
			ID: i, Name: "item " + strconv.Itoa(i), Tags: strings.Split("a,b,c,d", ","),
			Price: float64(i) * 1.25, More: map[string]string{"k" + strconv.Itoa(i): "v"},
		})
	}
	sort.Slice(items, func(i, j int) bool { return items[i].Name < items[j].Name })
	return items
}

func handle(w http.ResponseWriter, r *http.Request) {
	text, err := json.Marshal(makeItems(60))
	if err != nil {
		panic(err)
	}
	var back []item
	if err := json.Unmarshal(text, &back); err != nil {
		panic(err)
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.Write(text)
}

func fetch(client *http.Client, url string) error {
	response, err := client.Get(url)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return err
}

var requests int64

func load(url string) {
	client := &http.Client{Transport: &http.Transport{}}
	for {
		if err := fetch(client, url); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		atomic.AddInt64(&requests, 1)
	}
}

func measure(d time.Duration) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	n, start := atomic.LoadInt64(&requests), time.Now()
	time.Sleep(d)
	n, took := atomic.LoadInt64(&requests)-n, time.Since(start)
	runtime.ReadMemStats(&after)
	fmt.Printf("{\"requests\": %d, \"seconds\": %.6f, \"gcs\": %d}\n", n, took.Seconds(), after.NumGC-before.NumGC)
}

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address to serve on")
	serveOnly := flag.Bool("serve-only", false, "without clients")
	clients := flag.Int("clients", 4, "goroutines that load the server")
	url := flag.String("url", "", "load this server")
	scrape := flag.String("scrape", "", "fetch this every second")
	duration := flag.Duration("duration", 5*time.Second, "of -url and -scrape")
	flag.Parse()
	if *scrape != "" {
		for end := time.Now().Add(*duration); time.Now().Before(end); time.Sleep(time.Second) {
			if err := fetch(http.DefaultClient, *scrape); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
		}
		return
	}
	if *url != "" {
		for i := 0; i < *clients; i++ {
			go load(*url)
		}
		time.Sleep(*duration / 10)
		measure(*duration)
		return
	}
	http.HandleFunc("/items", handle)
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	go http.Serve(listener, nil)
	address := listener.Addr().String()
	if !*serveOnly {
		for i := 0; i < *clients; i++ {
			go load("http://" + address + "/items")
		}
	}
	fmt.Println("ready", os.Getpid(), address)
	commands := bufio.NewScanner(os.Stdin)
	for commands.Scan() {
		words := strings.Fields(commands.Text())
		if len(words) == 2 && words[0] == "measure" {
			seconds, err := strconv.ParseFloat(words[1], 64)
			if err != nil {
				panic(err)
			}
			measure(time.Duration(seconds * float64(time.Second)))
		} else if len(words) > 0 && words[0] == "quit" {
			break
		}
	}
}
