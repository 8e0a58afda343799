// Go's net, a goroutine for each connection. The listener is its standard input.
package main

import (
	"bufio"
	"log"
	"net"
	"os"
	"runtime"
	"sync"
)

const frameSizeMax = 64 * 1024

// Writers of connections that have nothing to say: so an idle one has none.
var writers = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, frameSizeMax) }}

// What a connection's reader reads from. It asks for more only when it holds no whole frame: then
// it is time to write the replies.
type source struct {
	conn   net.Conn
	writer *bufio.Writer
}

func (s *source) Read(into []byte) (int, error) {
	if err := s.flush(); err != nil {
		return 0, err
	}
	return s.conn.Read(into)
}

func (s *source) reply(frame []byte) error {
	if s.writer == nil {
		s.writer = writers.Get().(*bufio.Writer)
		s.writer.Reset(s.conn)
	}
	_, err := s.writer.Write(frame)
	return err
}

func (s *source) flush() error {
	if s.writer == nil {
		return nil
	}
	err := s.writer.Flush()
	writers.Put(s.writer)
	s.writer = nil
	return err
}

func serve(conn net.Conn) {
	defer conn.Close()
	source := &source{conn: conn}
	// A frame that does not fit is too long. Pages of it that are never touched are never there.
	reader := bufio.NewReaderSize(source, frameSizeMax+1)
	for {
		frame, err := reader.ReadSlice('\n')
		if err != nil {
			return
		}
		if err := source.reply(frame); err != nil {
			return
		}
	}
}

func main() {
	// As all others, it has one CPU.
	runtime.GOMAXPROCS(1)
	listener, err := net.FileListener(os.Stdin)
	if err != nil {
		log.Fatal(err)
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		// Go turns it on, and so has the kernel disturb idle connections every 15 seconds.
		conn.(*net.TCPConn).SetKeepAlive(false)
		go serve(conn)
	}
}
