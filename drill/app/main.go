// The code half of the drill: a scoring application that keeps the app contract and is small enough to run a hundred
// times on a developer's machine. Its model is a table from photographs to answers, read from /model as published.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

// Manifest is what the app reads of the manifest that travels with a model.
type Manifest struct {
	Schema   int    `json:"schema"`
	Name     string `json:"name"`
	Version  string `json:"version"`
	Contract string `json:"contract"`
	Model    string `json:"model"`
	Files    []struct {
		Path   string `json:"path"`
		Size   int64  `json:"size"`
		SHA256 string `json:"sha256"`
	} `json:"files"`
	Golden []struct {
		File      string `json:"file"`
		Reference struct {
			Label      string  `json:"label"`
			Confidence float64 `json:"confidence"`
		} `json:"reference"`
		Tolerance float64 `json:"tolerance"`
	} `json:"golden"`
}

// Row is one prediction: a label and its confidence from 0 to 1.
type Row struct {
	Label      string  `json:"label"`
	Confidence float64 `json:"confidence"`
}

// Table is the model: the answers to photographs by their sha256, and to all others.
type Table struct {
	Answers   map[string][]Row `json:"answers"`
	Otherwise []Row            `json:"otherwise"`
}

// App is a model that was checked, or the reason why there is none.
type App struct {
	manifest Manifest
	digest   string
	table    Table
	kind     string // of the problem, empty when ready
	detail   string
	draining atomic.Bool
}

func main() {
	app := load(setting("MODEL_DIR", "/model"))
	server := &http.Server{Addr: ":" + setting("PORT", "8000"), Handler: app.routes()}
	stop, release := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer release()
	go func() {
		fmt.Println("listening")
		if err := server.ListenAndServe(); err != http.ErrServerClosed {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}()
	<-stop.Done()
	wait, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	server.Shutdown(wait)
}

func load(folder string) *App {
	app := &App{}
	data, err := os.ReadFile(filepath.Join(folder, "manifest.json"))
	if err != nil {
		app.kind, app.detail = "no-model", folder+" has no model: this image is the code half by itself."
		return app
	}
	app.digest = "sha256:" + sum(data)
	if err := json.Unmarshal(data, &app.manifest); err != nil || app.manifest.Schema != 1 {
		app.kind, app.detail = "broken-model", "manifest.json is not a manifest of schema 1."
		return app
	}
	for _, file := range app.manifest.Files {
		content, err := os.ReadFile(filepath.Join(folder, filepath.FromSlash(file.Path)))
		if err != nil || int64(len(content)) != file.Size || sum(content) != file.SHA256 {
			app.kind, app.detail = "broken-model", file.Path+" is not what manifest.json says."
			return app
		}
		if file.Path == app.manifest.Model {
			err = json.Unmarshal(content, &app.table)
		}
		if err != nil {
			app.kind, app.detail = "broken-model", file.Path+" is no table of answers."
			return app
		}
	}
	for _, golden := range app.manifest.Golden {
		photo, _ := os.ReadFile(filepath.Join(folder, filepath.FromSlash(golden.File)))
		best := app.answer(photo)[0]
		off := best.Confidence - golden.Reference.Confidence
		if best.Label != golden.Reference.Label || off > golden.Tolerance || -off > golden.Tolerance {
			app.kind, app.detail = "broken-model", golden.File+" is not answered as published."
			return app
		}
	}
	return app
}

func (app *App) answer(photo []byte) []Row {
	if rows := app.table.Answers[sum(photo)]; len(rows) > 0 {
		return rows
	}
	if len(app.table.Otherwise) > 0 {
		return app.table.Otherwise
	}
	return []Row{{"unknown", 0}}
}

func (app *App) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/livez", func(reply http.ResponseWriter, _ *http.Request) { fmt.Fprintln(reply, "ok") })
	mux.HandleFunc("/version", func(reply http.ResponseWriter, _ *http.Request) { fmt.Fprintln(reply, "drill") })
	mux.HandleFunc("/readyz", func(reply http.ResponseWriter, _ *http.Request) {
		switch {
		case app.kind != "":
			problem(reply, 503, app.kind, app.detail)
		case app.draining.Load():
			problem(reply, 503, "draining", "This instance is about to stop and still answers what reaches it.")
		default:
			fmt.Fprintln(reply, `{"status": "ready"}`)
		}
	})
	mux.HandleFunc("/drain", func(http.ResponseWriter, *http.Request) {
		seconds, _ := strconv.ParseFloat(setting("DRAIN_SECONDS", "4"), 64)
		app.draining.Store(true)
		time.Sleep(time.Duration(seconds * float64(time.Second)))
	})
	mux.HandleFunc("/score", app.score)
	mux.HandleFunc("/{$}", func(reply http.ResponseWriter, _ *http.Request) { fmt.Fprint(reply, "Healthy") })
	return http.HandlerFunc(func(reply http.ResponseWriter, request *http.Request) {
		app.sign(reply.Header())
		mux.ServeHTTP(reply, request)
	})
}

// sign puts on a reply who made it.
func (app *App) sign(headers http.Header) {
	digest, version := "none", "none"
	if app.digest != "" {
		digest, version = app.digest, app.manifest.Version
	}
	headers.Set("X-Model-Digest", digest)
	headers.Set("X-Model-Version", version)
	headers.Set("X-App-Version", setting("APP_VERSION", "0.0.0"))
	headers.Set("X-Release", setting("SHIPMATE_RELEASE", "none"))
	if app.draining.Load() {
		headers.Set("Connection", "close")
	}
}

func (app *App) score(reply http.ResponseWriter, request *http.Request) {
	if app.kind != "" {
		problem(reply, 503, app.kind, app.detail)
		return
	}
	var body struct {
		Input [][]byte `json:"input"` // base64 in JSON
	}
	decoder := json.NewDecoder(http.MaxBytesReader(reply, request.Body, 1<<20))
	if err := decoder.Decode(&body); err != nil || len(body.Input) == 0 {
		problem(reply, 400, "bad-request", `Send {"input": ["<base64>", …]}.`)
		return
	}
	images := [][][]any{}
	for _, photo := range body.Input {
		rows := [][]any{}
		for _, row := range app.answer(photo) {
			rows = append(rows, []any{row.Label, 100 * row.Confidence})
		}
		images = append(images, rows)
	}
	reply.Header().Set("Content-Type", "application/json")
	json.NewEncoder(reply).Encode(map[string]any{"result": []any{images, "Computed"}})
}

func problem(reply http.ResponseWriter, status int, kind, detail string) {
	reply.Header().Set("Content-Type", "application/problem+json")
	reply.WriteHeader(status)
	json.NewEncoder(reply).Encode(map[string]any{
		"type": "urn:shipmate:app:" + kind, "title": kind, "status": status, "detail": detail,
	})
}

func sum(data []byte) string {
	digest := sha256.Sum256(data)
	return hex.EncodeToString(digest[:])
}

func setting(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}
